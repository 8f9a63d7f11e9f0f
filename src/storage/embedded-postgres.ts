/**
 * A PostgreSQL of our own for checkouts: real binaries, one server per DATA_DIR, shared by every
 * process that uses this directory.
 *
 * Whoever comes first starts the server and whoever leaves last stops it. An exclusive lock is held
 * while somebody comes or goes. In between, each process keeps one connection open, its presence:
 * PostgreSQL itself counts who is there, so a crash or a SIGKILL leaves no wrong count behind.
 *
 * `embedded-place.ts` decides on user and directory, `embedded-binaries.ts` finds the programs,
 * `embedded-cluster.ts` knows the server's files and its process, `embedded-presence.ts` connects.
 */
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import lockfile from 'proper-lockfile';
import { StartUpError } from '../start-up-error.ts';
import { locateBinaries, prepareBinaries } from './embedded-binaries.ts';
import {
  type Cluster,
  clusterIn,
  createCluster,
  findFreePort,
  findPostmaster,
  type Launch,
  launchServer,
  loopback,
  NO_OPTIONS,
  removeMisleadingPidFile,
  shutDown,
  superuser,
} from './embedded-cluster.ts';
import { chooseServerPlace, serverDirName } from './embedded-place.ts';
import {
  findOthers,
  keepPresence,
  type PresenceClient,
  readPassword,
  tryToConnect,
} from './embedded-presence.ts';

/** The database that the server keeps for this program. */
export const EMBEDDED_DATABASE = 'heirloom';

export interface EmbeddedPostgresOptions {
  /** Absolute path; created when missing. */
  dataDir: string;
  /** Receives one plain line about anything surprising (e.g. data kept elsewhere). */
  notice: (line: string) => void;
  /** Extra `postgres -c` settings, applied when this call is the one that starts the server (tests use it). */
  settings?: Readonly<Record<string, string>>;
  /** Aborted when the server is not wanted any more; one that is not launched by then is not launched. */
  stopping?: AbortSignal | undefined;
}

export interface EmbeddedPostgres {
  host: string;
  port: number;
  user: string;
  password: string;
  /** Connection string for a database of this server. */
  url(database: string): string;
  /** Stops the server unless somebody else is connected to it. Safe to call once all own connections are closed. */
  stopIfIdle(): Promise<'stopped' | 'in-use'>;
}

/** Longer than a server may take to be ready, for which its starter holds the lock. */
const LOCK_PATIENCE_MILLISECONDS = 65_000;
const READY_PATIENCE_MILLISECONDS = 60_000;
const MAXIMUM_LAUNCHES = 10;
const WAITING_NOTICE =
  'Waiting for a process that starts or stops PostgreSQL; if it was killed, for ten seconds.';

/**
 * Finds the running server of `dataDir`, or creates and starts it, with an empty `EMBEDDED_DATABASE`.
 *
 * The connection that marks this process as present does not keep its event loop alive.
 *
 * @throws StartUpError where there are no binaries, or the server cannot be set up or does not start
 * @throws the reason of `stopping`
 */
export async function startEmbeddedPostgres(
  options: EmbeddedPostgresOptions,
): Promise<EmbeddedPostgres> {
  const packageDir = await locateBinaries();
  try {
    const cluster = clusterIn(await chooseServerPlace(options.dataDir, options.notice));
    return await withLock(cluster.baseDir, options, async () => {
      const { client, port, password } = await connectOrLaunch(cluster, packageDir, options);
      try {
        await ensureDatabase(client);
      } catch (error) {
        await stopUnlessUsed(cluster, client).catch(() => {});
        throw error;
      }
      const presence = keepPresence(client, () => tryToConnect(cluster));
      return {
        host: loopback,
        port,
        user: superuser,
        password,
        // Complete, so that PGSSLMODE, PGSSLNEGOTIATION and PGOPTIONS, which are about other servers, do not complete it.
        url: (database) =>
          `postgres://${superuser}:${password}@${loopback}:${port}/${encodeURIComponent(database)}` +
          `?sslmode=disable&sslnegotiation=postgres&options=${encodeURIComponent(NO_OPTIONS)}`,
        stopIfIdle: () =>
          withLock(cluster.baseDir, { notice: options.notice }, () => {
            return stopUnlessUsed(cluster, presence.leave());
          }),
      };
    });
  } catch (error) {
    throw isFileTrouble(error)
      ? new StartUpError(`The embedded PostgreSQL cannot use its files: ${error.message}`, {
          cause: error,
        })
      : error;
  }
}

/** No permission, no space, a file where a directory should be: nothing that a stack would explain. */
function isFileTrouble(error: unknown): error is NodeJS.ErrnoException {
  return error instanceof Error && 'syscall' in error && 'path' in error;
}

type Waiting = Pick<EmbeddedPostgresOptions, 'notice' | 'stopping'>;

async function withLock<Result>(
  dir: string,
  waiting: Waiting,
  action: () => Promise<Result>,
): Promise<Result> {
  const release = await acquireLock(dir, waiting);
  try {
    return await action();
  } finally {
    await release().catch(() => {});
  }
}

/** Waits here and not in proper-lockfile, which would try again for a minute without permission, too. */
async function acquireLock(
  dir: string,
  { notice, stopping }: Waiting,
): Promise<() => Promise<void>> {
  const lockfilePath = join(dir, `${serverDirName}.lock`);
  // Lost only by a process that stood still for long. What it guards is safe then, too: files appear
  // whole, and PostgreSQL runs once per cluster. Throwing, the default, would end the process.
  const onCompromised = () => {};
  const deadline = Date.now() + LOCK_PATIENCE_MILLISECONDS;
  for (let attempt = 1; Date.now() < deadline; attempt += 1) {
    stopping?.throwIfAborted();
    try {
      return await lockfile.lock(dir, { lockfilePath, stale: 10_000, onCompromised });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ELOCKED') throw error;
    }
    if (attempt === 30) notice(WAITING_NOTICE);
    await delay(100);
  }
  throw new StartUpError(
    `Another process has been starting or stopping PostgreSQL for a minute (${lockfilePath}).`,
  );
}

interface Connected {
  client: PresenceClient;
  port: number;
  password: string;
}

/** Whatever goes wrong, a server that was launched on the way is not left behind: nobody would stop it. */
async function connectOrLaunch(
  cluster: Cluster,
  packageDir: string,
  options: EmbeddedPostgresOptions,
): Promise<Connected> {
  const launches: Launch[] = [];
  try {
    return await connectSoon(cluster, packageDir, options, launches);
  } catch (error) {
    await launches.at(-1)?.stop();
    throw error;
  }
}

/**
 * Watches `postmaster.pid` until a connection succeeds, and launches the server whenever none runs.
 * So one that is still starting, recovering or shutting down needs no case of its own.
 */
async function connectSoon(
  cluster: Cluster,
  packageDir: string,
  { dataDir, notice, settings = {}, stopping }: EmbeddedPostgresOptions,
  launches: Launch[],
): Promise<Connected> {
  let binDir: string | undefined;
  let deadline = Date.now() + READY_PATIENCE_MILLISECONDS;
  while (Date.now() < deadline) {
    const postmaster = await findPostmaster(cluster);
    const failure = await launches.at(-1)?.failure();
    if (postmaster?.isRunning) {
      const client = await tryToConnect(cluster);
      if (client) {
        return { client, port: client.port, password: await readPassword(cluster) };
      }
    } else if (launches.length === 0 || failure !== undefined) {
      if (failure !== undefined) await pauseUnlessFinal(failure, launches.length, cluster);
      if (binDir === undefined) {
        // Who has been told of another directory need not hear that the programs are there, too.
        const copyNotice = cluster.baseDir === dataDir ? notice : () => {};
        binDir = await prepareBinaries(packageDir, cluster, copyNotice);
        await createCluster(cluster, binDir, settings);
      }
      if (postmaster) await removeMisleadingPidFile(cluster, postmaster);
      // The port of a server that crashed serves processes that still have its address.
      const port = (launches.length === 0 && postmaster?.port) || (await findFreePort());
      stopping?.throwIfAborted();
      launches.push(await launchServer(cluster, binDir, port, settings));
      deadline = Date.now() + READY_PATIENCE_MILLISECONDS;
    }
    await delay(20);
  }
  throw new StartUpError(
    `PostgreSQL has accepted no connection for 60 seconds; its log is ${cluster.logPath}`,
  );
}

/** Another try helps where a port was taken in between, or where a killed server's backends remain. */
async function pauseUnlessFinal(
  failure: string,
  launches: number,
  cluster: Cluster,
): Promise<void> {
  const mayPass = /TCP\/IP sockets|shared memory block|"postmaster\.pid" already exists/;
  if (launches >= MAXIMUM_LAUNCHES || !mayPass.test(failure)) {
    throw new StartUpError(`PostgreSQL did not start: ${failure} (log: ${cluster.logPath})`);
  }
  await delay(500);
}

async function ensureDatabase(client: PresenceClient): Promise<void> {
  const { rowCount } = await client.query('select from pg_database where datname = $1', [
    EMBEDDED_DATABASE,
  ]);
  if (rowCount === 0) await client.query(`create database ${EMBEDDED_DATABASE} owner ${superuser}`);
}

/** Ends the presence of this process and, if it was the last, the server; both under the lock. */
async function stopUnlessUsed(
  cluster: Cluster,
  presence: PresenceClient | undefined,
): Promise<'stopped' | 'in-use'> {
  let client = presence;
  try {
    // A backend leaves pg_stat_activity a moment after its client has left.
    for (let attempt = 0; attempt < 10; attempt += 1) {
      const postmaster = await findPostmaster(cluster);
      if (!postmaster?.isRunning) return 'stopped';
      client ??= await tryToConnect(cluster);
      const others = client && (await findOthers(client).catch(() => undefined));
      if (others === 'heirloom') return 'in-use';
      if (others === 'nobody') {
        await client?.end();
        await shutDown(postmaster.pid);
        return 'stopped';
      }
      if (others === undefined) {
        await client?.end();
        client = undefined;
      }
      await delay(50);
    }
    return 'in-use';
  } finally {
    await client?.end();
  }
}
