/** The process: environment, configuration, application, listening, graceful end. Nothing else touches `process`. */
import cluster from 'node:cluster';
import { createServer } from 'node:net';
import { availableParallelism } from 'node:os';
import closeWithGrace from 'close-with-grace';
import fastify, { type FastifyBaseLogger } from 'fastify';
import pino from 'pino';
import { buildApp, hostAndPort, listeningAddress, loggerOptions } from './app.ts';
import { runCommandLine } from './cli/command-line.ts';
import { type Config, isCookieDeliverySafe, loadConfig } from './config.ts';
import { yieldToOthersWhileHashing } from './crypto/hash-priority.ts';
import { demoBanner, ensureDemo, refuseDemo } from './demo.ts';
import { createDependencies, type Dependencies } from './dependencies.ts';
import { startHousekeeping } from './housekeeping.ts';
import { TemporarilyUnavailable } from './oauth/errors.ts';
import { StartUpError } from './start-up-error.ts';
import type { RegisteredClient } from './storage/client-registry.ts';
import { version } from './version.ts';
import { countInPrimary, STOP_MESSAGE, startWorkers } from './workers.ts';

/**
 * Log lines, written beside the requests. A full disk or a reader that sleeps costs lines, which is
 * better than requests: nothing waits for a line, and no more than this is kept for later.
 */
const logStream = pino.destination({ fd: 1, sync: false, maxLength: 1024 * 1024 });
logStream.on('error', () => {});
/** Without `flushSync`, which would wait for ever for a disk that stays full. */
const log = { write: (line: string) => logStream.write(line) };

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
  if (cluster.isWorker) {
    await withDependencies(config, (dependencies) => answer(config, dependencies));
    return;
  }
  await assertPortIsFree(config);
  await withDependencies(config, async (dependencies) => {
    await prepareDatabase(config, dependencies);
    const url =
      config.workers === 1 ? await answer(config, dependencies) : await lead(config, dependencies);
    // Only now, when clients can retry: a start that fails on the way must not end an outage. A refresh
    // that comes sooner finds the pulse overdue and records it by itself.
    await dependencies.tokens.recordPulse();
    const banner = config.databaseUrl === undefined ? `${demoBanner(url)}\n` : '';
    process.stdout.write(`Heirloom ${version} listening on ${url}\n${banner}`);
  });
}

/** Closes what was opened when the start fails on the way. */
async function withDependencies(
  config: Config,
  work: (dependencies: Dependencies) => Promise<unknown>,
): Promise<void> {
  const dependencies = await createDependencies(config, {
    isMigrating: cluster.isPrimary,
    notice: (line) => process.stderr.write(`${line}\n`),
  });
  try {
    await work(dependencies);
  } catch (error) {
    await dependencies.close();
    throw error;
  }
}

async function prepareDatabase(config: Config, dependencies: Dependencies): Promise<void> {
  if (config.databaseUrl === undefined) await ensureDemo(dependencies);
  else await refuseDemo(dependencies);
  await refuseUnsafeCookieClients(dependencies);
}

/**
 * A browser neither keeps nor sends a `Secure` cookie where there is no TLS, and a cookie without it would be
 * read on the way: such a start could only pretend.
 *
 * @throws StartUpError
 */
async function refuseUnsafeCookieClients({ config, clients }: Dependencies): Promise<void> {
  if (isCookieDeliverySafe(config)) return;
  const isAffected = ({ delivery, disabledAt }: RegisteredClient) =>
    delivery === 'cookie' && disabledAt === null;
  const affected = (await clients.list()).find(isAffected);
  if (affected === undefined) return;
  throw new StartUpError(
    `The client ${JSON.stringify(affected.clientId)} gets its refresh token by cookie, which needs an ISSUER ` +
      'with https or on loopback. Set one, or change the client with --delivery body.',
  );
}

/** Answers requests in this process; says where. */
async function answer(config: Config, dependencies: Dependencies): Promise<string> {
  const { authorizationServer, origins, database, requestCounter } = dependencies;
  const checkReadiness = () => database.checkConnection();
  const app = await buildApp({
    config,
    authorizationServer,
    origins,
    sharedCounter: requestCounter ?? (cluster.isWorker ? countInPrimary() : undefined),
    checkReadiness,
    logStream: log,
  });
  await app.listen({
    host: config.host,
    port: config.port,
    listenTextResolver: (address) => `bound to ${address}`,
  });
  await yieldToOthersWhileHashing();
  const stopHousekeeping = startHousekeeping(dependencies, app.log);
  endGracefully(config.shutdownTimeoutSeconds, app.log, async () => {
    await app.close();
    await stopHousekeeping();
    await dependencies.close();
  });
  return `http://${listeningAddress(app, config.host)}`;
}

/** Lets workers answer and watches over them; says where. */
async function lead(config: Config, dependencies: Dependencies): Promise<string> {
  // Serves nothing: only the logger is wanted, the same as the workers have.
  const leader = fastify({ logger: { ...loggerOptions(config), stream: log } });
  const workers = await startWorkers({
    count: config.workers,
    onDeath: (processId) => leader.log.error({ event: 'worker_died', processId }),
  });
  endGracefully(config.shutdownTimeoutSeconds * (config.workers + 1), leader.log, async () => {
    await workers.stop();
    await dependencies.close();
  });
  return `http://${hostAndPort(config.host, workers.port)}`;
}

/** Ends on SIGTERM and SIGINT, on an uncaught exception, and when the npm that started it is gone. */
function endGracefully(
  timeoutSeconds: number,
  log: FastifyBaseLogger,
  close: () => Promise<void>,
): void {
  const delay = timeoutSeconds * 1000;
  let isEnding = false;
  const closer = closeWithGrace({ delay, logger: log }, async ({ err }) => {
    if (err) log.error({ event: 'crashed', error: { name: err.name, stack: err.stack } });
    isEnding = true;
    await close();
    await lastLines();
  });
  if (cluster.isWorker) {
    process.on('message', (message) => {
      if (message === STOP_MESSAGE && !isEnding) closer.close();
    });
    return;
  }
  if (process.env['npm_lifecycle_event'] === undefined) return;
  // npm can die of a signal without passing it on, and would leave the server behind.
  const parent = process.ppid;
  setInterval(() => {
    if (process.ppid !== parent) closer.close();
  }, 1000).unref();
}

/** Gives the last log lines half a second to be written. */
function lastLines(): Promise<void> {
  return new Promise((resolve) => {
    logStream.flush(() => resolve());
    setTimeout(resolve, 500).unref();
  });
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
