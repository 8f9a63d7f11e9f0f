/** The process: environment, configuration, application, listening, graceful end. Nothing else touches `process`. */
import cluster from 'node:cluster';
import { createServer } from 'node:net';
import { availableParallelism } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import closeWithGrace from 'close-with-grace';
import pino, { type Logger } from 'pino';
import { runCommandLine } from './cli/command-line.ts';
import { type Config, isCookieDeliverySafe, loadConfig } from './config.ts';
import { yieldToOthersWhileHashing } from './crypto/hash-priority.ts';
import { demoBanner, ensureDemo, refuseDemo } from './demo.ts';
import { createDependencies, type Dependencies } from './dependencies.ts';
import { startHousekeeping } from './housekeeping.ts';
import { hostAndPort, listeningAddress } from './listening-address.ts';
import { openLogStream } from './log-stream.ts';
import { loggerOptions } from './logger-options.ts';
import { tuneRuntime } from './runtime-tuning.ts';
import { StartUpError } from './start-up-error.ts';
import { onNpmDeath, onStopSignal, STOP_SIGNALS } from './stop-requests.ts';
import type { RegisteredClient } from './storage/client-registry.ts';
import { databaseTroubleOf } from './storage/database.ts';
import { version } from './version.ts';
import { countInPrimary, STOP_MESSAGE, startWorkers, watchPrimary } from './workers.ts';

const logStream = openLogStream(process);

type Close = () => Promise<void>;

interface Server {
  readonly url: string;
  readonly close: Close;
}

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
  tuneRuntime();
  // As for the log: unheard, the failure to write a line that is for people would end the process.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  const config = loadConfig(process.env);
  const logger = pino(loggerOptions(config), logStream);
  const { shutdownDelaySeconds, shutdownTimeoutSeconds, workers } = config;
  const processes = isLeading(config) ? workers + 1 : 1;
  const timing = {
    delaySeconds: shutdownDelaySeconds,
    timeoutSeconds: shutdownDelaySeconds + shutdownTimeoutSeconds * processes,
  };
  await runUntilStopped(timing, logger, (stopping) => start(config, logger, stopping));
}

/** Opens one thing after the other. Closes what is open when that fails or is to stop, or when it is told to. */
async function start(config: Config, logger: Logger, stopping: AbortSignal): Promise<Close> {
  if (cluster.isPrimary) await assertPortIsFree(config);
  const dependencies = await createDependencies(config, {
    isMigrating: cluster.isPrimary,
    notice: (line) => process.stderr.write(`${line}\n`),
    stopping,
  });
  let server: Server | undefined;
  const close = async () => {
    await server?.close();
    await dependencies.close();
  };
  try {
    if (cluster.isPrimary) await prepareDatabase(config, dependencies);
    stopping.throwIfAborted();
    server = await (isLeading(config)
      ? lead(config, logger, stopping)
      : answer(config, dependencies, stopping));
    stopping.throwIfAborted();
    if (cluster.isPrimary) await announce(config, server.url, dependencies);
    return close;
  } catch (error) {
    await close();
    throw error;
  }
}

/** Leaves the requests to workers. */
function isLeading({ workers }: Config): boolean {
  return cluster.isPrimary && workers > 1;
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

/** Answers requests in this process. */
async function answer(
  config: Config,
  dependencies: Dependencies,
  stopping: AbortSignal,
): Promise<Server> {
  // Only here: commands, and a primary that leaves the requests to workers, do without Fastify.
  const { buildApp } = await import('./app.ts');
  const { authorizationServer, origins, database, requestCounter } = dependencies;
  const checkReadiness = () => database.checkConnection();
  const isPrimaryLeaving = cluster.isWorker ? watchPrimary() : () => false;
  const app = await buildApp({
    config,
    authorizationServer,
    origins,
    sharedCounter: requestCounter ?? (cluster.isWorker ? countInPrimary() : undefined),
    checkReadiness,
    isLeaving: () => stopping.aborted || isPrimaryLeaving(),
    logStream,
  });
  await app.listen({
    host: config.host,
    port: config.port,
    listenTextResolver: (address) => `bound to ${address}`,
  });
  await yieldToOthersWhileHashing();
  const stopHousekeeping = startHousekeeping(dependencies, app.log);
  return {
    url: `http://${listeningAddress(app, config.host)}`,
    close: async () => {
      await app.close();
      await stopHousekeeping();
    },
  };
}

/** Lets workers answer and watches over them. */
async function lead(config: Config, logger: Logger, stopping: AbortSignal): Promise<Server> {
  const workers = await startWorkers({
    count: config.workers,
    stopping,
    onDeath: (processId) => logger.error({ event: 'worker_died', processId }),
  });
  return { url: `http://${hostAndPort(config.host, workers.port)}`, close: workers.stop };
}

async function announce(config: Config, url: string, { tokens }: Dependencies): Promise<void> {
  // Only now, when clients can retry: a start that fails on the way must not end an outage. A refresh
  // that comes sooner finds the pulse overdue and records it by itself.
  await tokens.recordPulse();
  const banner = config.databaseUrl === undefined ? `${demoBanner(url)}\n` : '';
  process.stdout.write(`Heirloom ${version} listening on ${url}\n${banner}`);
}

/**
 * Runs `start`, and what it has opened until the process is asked to end or crashes. A start that is
 * under way then gives up after its next step.
 *
 * @param delaySeconds between a signal and closing; neither after a crash nor in a worker whose primary has waited
 * @param timeoutSeconds for all of the end
 * @param start rejects when it has given up or failed, with nothing left open
 */
async function runUntilStopped(
  timing: { readonly delaySeconds: number; readonly timeoutSeconds: number },
  logger: Logger,
  start: (stopping: AbortSignal) => Promise<Close>,
): Promise<void> {
  const stopping = new AbortController();
  let isDelayed = false;
  const noteCrash = (thrown: unknown) => {
    const { name, stack } = Object(thrown) as Partial<Error>;
    logger.error({ event: 'crashed', error: { name, stack } });
  };
  const { close: end } = closeWithGrace(
    {
      delay: timing.timeoutSeconds * 1000,
      logger,
      onSecondError: noteCrash,
      // Nothing is left to do at `beforeExit` but to keep the exit code of a start that failed.
      skip: [...STOP_SIGNALS, 'beforeExit'],
    },
    async ({ err }) => {
      if (err) noteCrash(err);
      stopping.abort();
      const close = await started.catch(() => undefined);
      if (close !== undefined && isDelayed) await delay(timing.delaySeconds * 1000);
      await close?.();
      await logStream.drain();
    },
  );
  listenForStop((wait) => {
    if (stopping.signal.aborted) return;
    isDelayed = wait;
    end();
  });
  const started = start(stopping.signal);
  await started.catch((error) => {
    if (!stopping.signal.aborted) throw error;
  });
}

/** Hears SIGINT, SIGTERM and SIGHUP, the primary, and the end of the npm that started this process. */
function listenForStop(stop: (isDelayed: boolean) => void): void {
  onStopSignal(
    process,
    () => stop(true),
    () => process.exit(1),
  );
  if (cluster.isWorker) {
    process.on('message', (message) => {
      if (message === STOP_MESSAGE) stop(false);
    });
  } else {
    onNpmDeath(process, () => stop(true));
  }
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
  process.stderr.write(`${reasonNotToStart(error)}\n`);
  process.exitCode = 1;
  // A worker lives as long as its channel to the primary, which waits for its end.
  cluster.worker?.disconnect();
}

function reasonNotToStart(error: NodeJS.ErrnoException): string {
  if (error instanceof StartUpError) return error.message;
  const { code, message } = error;
  if (code === 'EADDRINUSE') {
    const where = message.replace('listen EADDRINUSE: address already in use', 'Port in use:');
    return `${where}. Set PORT to another one.`;
  }
  if (code !== undefined && ['EACCES', 'EADDRNOTAVAIL', 'ENOTFOUND', 'EAI_AGAIN'].includes(code)) {
    return `Cannot listen: ${message}. Look at HOST and PORT.`;
  }
  const trouble = databaseTroubleOf(error);
  return trouble === undefined ? `Cannot start: ${error.stack}` : `Cannot start: ${trouble}.`;
}
