/** The process: environment, configuration, application, listening, graceful end. Nothing else touches `process`. */
import { createServer } from 'node:net';
import { availableParallelism } from 'node:os';
import closeWithGrace from 'close-with-grace';
import type { FastifyInstance } from 'fastify';
import { buildApp, listeningAddress } from './app.ts';
import { runCommandLine } from './cli/command-line.ts';
import { type Config, loadConfig } from './config.ts';
import { demoBanner, ensureDemo, refuseDemo } from './demo.ts';
import { createDependencies, type Dependencies } from './dependencies.ts';
import { startHousekeeping } from './housekeeping.ts';
import { TemporarilyUnavailable } from './oauth/errors.ts';
import { StartUpError } from './start-up-error.ts';
import { version } from './version.ts';

/** Hashes occupy one thread of libuv's pool each; look-ups of files and names need some of their own. */
process.env['UV_THREADPOOL_SIZE'] ??= String(availableParallelism() + 4);

const [command = 'serve', ...rest] = process.argv.slice(2);
if (command === 'serve' && rest.length === 0) {
  await serve().catch(reportAndExit);
} else {
  process.exitCode = await runCommandLine(process.argv.slice(2), {
    environment: process.env,
    stdin: process.stdin,
    stdout: process.stdout,
    stderr: process.stderr,
  });
}

async function serve(): Promise<void> {
  const config = loadConfig(process.env);
  await assertPortIsFree(config);
  const dependencies = await createDependencies(config, {
    isMigrating: true,
    notice: (line) => process.stderr.write(`${line}\n`),
  });
  try {
    await start(config, dependencies);
  } catch (error) {
    await dependencies.close();
    throw error;
  }
}

async function start(config: Config, dependencies: Dependencies): Promise<void> {
  const { authorizationServer, database, tokens } = dependencies;
  const hasDemo = config.databaseUrl === undefined;
  if (hasDemo) await ensureDemo(dependencies);
  else await refuseDemo(dependencies);
  // Before the first request, so that windows which were open during the outage are judged right.
  await tokens.recordPulse();

  const checkReadiness = () => database.checkConnection();
  const app = await buildApp({ config, authorizationServer, checkReadiness });
  await app.listen({
    host: config.host,
    port: config.port,
    listenTextResolver: (address) => `bound to ${address}`,
  });
  const stopHousekeeping = startHousekeeping(dependencies, app.log);
  endGracefully(
    config,
    async () => {
      await app.close();
      await stopHousekeeping();
      await dependencies.close();
    },
    app,
  );

  const url = `http://${listeningAddress(app, config.host)}`;
  process.stdout.write(`Heirloom ${version} listening on ${url}\n`);
  if (hasDemo) process.stdout.write(`${demoBanner(url)}\n`);
}

/** Ends on SIGTERM and SIGINT, on an uncaught exception, and when the npm that started it is gone. */
function endGracefully(config: Config, close: () => Promise<void>, app: FastifyInstance): void {
  const delay = config.shutdownTimeoutSeconds * 1000;
  const closer = closeWithGrace({ delay, logger: app.log }, async ({ err }) => {
    if (err) app.log.fatal({ event: 'crashed', error: { name: err.name, stack: err.stack } });
    await close();
  });
  if (process.env['npm_lifecycle_event'] === undefined) return;
  // npm can die of a signal without passing it on, and would leave the server behind.
  const parent = process.ppid;
  setInterval(() => {
    if (process.ppid !== parent) closer.close();
  }, 1000).unref();
}

/** Says so before anything is created. Another process can still be faster; listening then fails the same way. */
async function assertPortIsFree({ host, port }: Config): Promise<void> {
  if (port === 0) return;
  const probe = createServer();
  await new Promise<void>((resolve, reject) => {
    probe.once('error', reject);
    probe.listen({ host, port }, () => probe.close(() => resolve()));
  });
}

function reportAndExit(error: NodeJS.ErrnoException): void {
  const reason =
    error.code === 'EADDRINUSE'
      ? `${error.message.replace('listen EADDRINUSE: address already in use', 'Port in use:')}. Set PORT to another one.`
      : error.code !== undefined && ['EACCES', 'EADDRNOTAVAIL', 'ENOTFOUND'].includes(error.code)
        ? `Cannot listen: ${error.message}. Look at HOST and PORT.`
        : error instanceof StartUpError || error instanceof TemporarilyUnavailable
          ? error.message
          : `Cannot start: ${error.stack}`;
  process.stderr.write(`${reason}\n`);
  process.exitCode = 1;
}
