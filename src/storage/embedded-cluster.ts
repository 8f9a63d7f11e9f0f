/** The embedded server as files and a process: initdb, launch, `postmaster.pid`, shutdown. */
import { execFile, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { type FileHandle, open, readFile, rm, stat, writeFile } from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { totalmem, userInfo } from 'node:os';
import { basename, join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { promisify } from 'node:util';
import { StartUpError } from '../start-up-error.ts';
import { createWhole } from './embedded-binaries.ts';
import {
  giveTo,
  programOptions,
  runProgram,
  type ServerPlace,
  serverDirName,
} from './embedded-place.ts';

/** The superuser that initdb creates; there is no other. */
export const superuser = 'heirloom';

/** The only address the server listens on. */
export const loopback = '127.0.0.1';

/** What is said instead of PGOPTIONS: nothing would not count as said. */
export const NO_OPTIONS = ' ';

/** Settings by their names in postgresql.conf. */
export type ServerSettings = Readonly<Record<string, string>>;

/** A place, and where the server's files are in it. */
export interface Cluster extends ServerPlace {
  serverDir: string;
  clusterDir: string;
  passwordPath: string;
  logPath: string;
}

/** Names the files of the server of a place; touches nothing. */
export function clusterIn(place: ServerPlace): Cluster {
  const serverDir = join(place.baseDir, serverDirName);
  return {
    ...place,
    serverDir,
    clusterDir: join(serverDir, 'cluster'),
    passwordPath: join(serverDir, 'password'),
    logPath: join(serverDir, 'server.log'),
  };
}

/**
 * Creates password and cluster, unless they are there; both or neither, whatever happens.
 *
 * @throws StartUpError with what initdb said
 */
export async function createCluster(
  cluster: Cluster,
  binDir: string,
  settings: ServerSettings,
): Promise<void> {
  if (await isFile(join(cluster.clusterDir, 'PG_VERSION'))) return;
  refuseUnfitForInitdb(cluster, binDir);
  await createWhole(cluster.serverDir, async (partialDir) => {
    const passwordPath = join(partialDir, 'password');
    const password = randomBytes(32).toString('base64url');
    await writeFile(passwordPath, password, { mode: 0o600, flush: true });
    await giveTo(cluster.user, passwordPath);
    await giveTo(cluster.user, partialDir);
    const initdb = await runProgram(
      join(binDir, 'initdb'),
      [
        `--pgdata=${join(partialDir, 'cluster')}`,
        `--username=${superuser}`,
        `--pwfile=${passwordPath}`,
        '--auth=scram-sha-256',
        '--encoding=UTF8',
        '--locale-provider=builtin',
        '--builtin-locale=C.UTF-8',
        '--no-instructions',
        // Whoever starts the server without fsync gives the data no more than that either.
        ...(settings['fsync'] === 'off' ? ['--no-sync'] : []),
      ],
      cluster.user,
    );
    if (!initdb.succeeded) {
      throw new StartUpError(
        `PostgreSQL's initdb failed in ${cluster.baseDir}: ${complaintIn(initdb.output, 'first')}`,
      );
    }
  });
  await syncDirectory(cluster.baseDir);
}

/** Says what initdb itself would call a missing program, or say without a way out. @throws StartUpError */
function refuseUnfitForInitdb({ user }: Cluster, binDir: string): void {
  if (/["$`\\]/.test(binDir)) {
    throw new StartUpError(
      `PostgreSQL's initdb cannot be run in ${binDir}, because a shell reads its path. ` +
        'Move the installation to a path without ", $, ` and \\, or set DATABASE_URL=postgres://user:password@host:5432/db.',
    );
  }
  if (user === undefined && !hasAccount()) {
    throw new StartUpError(
      `PostgreSQL's initdb needs an account, and user ${process.geteuid?.()} has none. ` +
        'Add one to /etc/passwd, start as another user, or set DATABASE_URL=postgres://user:password@host:5432/db.',
    );
  }
}

/** A container can run as any number, whether `/etc/passwd` knows it or not. */
function hasAccount(): boolean {
  try {
    return userInfo().username !== '';
  } catch {
    return false;
  }
}

async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (found) => found.isFile(),
    () => false,
  );
}

/** initdb syncs what it writes, but the rename that publishes it is ours. */
async function syncDirectory(dir: string): Promise<void> {
  const directory = await open(dir);
  await directory.sync().finally(() => directory.close());
}

/** What `postmaster.pid` says, which a killed server leaves behind. */
export interface Postmaster {
  pid: number;
  port: number;
  isRunning: boolean;
  /** Accepts connections; until then its port may be anybody's. */
  isReady: boolean;
}

/**
 * Reads `postmaster.pid` and looks whether its process still is a PostgreSQL.
 *
 * @throws StartUpError when that is the server of another directory, of which this one is a copy
 */
export async function findPostmaster(cluster: Cluster): Promise<Postmaster | undefined> {
  const text = await readFile(pidPath(cluster), 'utf8').catch((error) => {
    if (error.code === 'ENOENT') return '';
    throw error;
  });
  const lines = text.split('\n');
  const pid = Number(lines[0]);
  const port = Number(lines[3]);
  if (!(pid > 0 && port > 0)) return undefined;
  const isRunning = await isPostgres(pid);
  if (isRunning) await refuseCopy(cluster, lines[1] ?? '');
  return { pid, port, isRunning, isReady: isRunning && lines[7]?.trim() === 'ready' };
}

/** What is written through a copy would be written into the original, and whoever leaves would stop its server. */
async function refuseCopy({ clusterDir }: Cluster, servedDir: string): Promise<void> {
  const [own, served] = await Promise.all(
    // One that was renamed since, or that this user may not see, says nothing.
    [clusterDir, servedDir].map((dir) => stat(dir).catch(() => undefined)),
  );
  if (own === undefined || served === undefined) return;
  if (own.dev === served.dev && own.ino === served.ino) return;
  throw new StartUpError(
    `The database in ${clusterDir} is a copy of ${servedDir}, made while PostgreSQL was running there. ` +
      'Stop that server first, or copy it when it is stopped.',
  );
}

function pidPath(cluster: Cluster): string {
  return join(cluster.clusterDir, 'postmaster.pid');
}

/** A process that was killed but that nobody has waited for counts as gone, unlike for `kill`. */
async function isPostgres(pid: number): Promise<boolean> {
  try {
    const program =
      process.platform === 'linux'
        ? (await readFile(`/proc/${pid}/cmdline`, 'utf8')).split('\0', 1)[0]
        : (await promisify(execFile)('ps', ['-o', 'comm=', '-p', String(pid)])).stdout.trim();
    return basename(program ?? '') === 'postgres';
  } catch {
    return false;
  }
}

/** A server process that this process has started. */
export interface Launch {
  /** Why it ended, in one line; undefined while it runs. */
  failure(): Promise<string | undefined>;
  /** Shuts the server down, if it runs, and waits until it is gone. */
  stop(): Promise<void>;
}

/**
 * Starts the server in a session of its own, where a Ctrl-C at this process's terminal does not reach
 * it, and does not wait until it accepts connections.
 */
export async function launchServer(
  cluster: Cluster,
  binDir: string,
  port: number,
  settings: ServerSettings,
): Promise<Launch> {
  const log = await openLog(cluster);
  try {
    const logStart = (await log.stat()).size;
    const child = spawn(join(binDir, 'postgres'), serverArguments(cluster, port, settings), {
      ...programOptions(cluster.user),
      detached: true,
      stdio: ['ignore', log.fd, log.fd],
    });
    let spawnError: Error | undefined;
    child.on('error', (error) => {
      spawnError = error;
    });
    child.unref();
    const hasEnded = () => child.exitCode !== null || child.signalCode !== null;
    return {
      failure: async () => {
        if (spawnError) return spawnError.message;
        return hasEnded() ? readFailure(cluster.logPath, logStart) : undefined;
      },
      stop: async () => {
        if (child.pid !== undefined && !hasEnded()) await shutDown(child.pid);
      },
    };
  } finally {
    await log.close();
  }
}

async function openLog(cluster: Cluster): Promise<FileHandle> {
  const { O_WRONLY, O_APPEND, O_CREAT, O_NOFOLLOW } = constants;
  // The directory is the server user's; root must not follow a link from there.
  const log = await open(cluster.logPath, O_WRONLY | O_APPEND | O_CREAT | O_NOFOLLOW, 0o600);
  if (cluster.user) await log.chown(cluster.user.uid, cluster.user.gid);
  return log;
}

function serverArguments(cluster: Cluster, port: number, settings: ServerSettings): string[] {
  const all: ServerSettings = {
    port: String(port),
    listen_addresses: loopback,
    unix_socket_directories: '',
    password_encryption: 'scram-sha-256',
    max_connections: '200',
    shared_buffers: `${sharedBuffersMegabytes()}MB`,
    // Values reach the log neither as bind parameters nor inside a statement that failed: MikroORM
    // writes them into the SQL text.
    log_parameter_max_length: '0',
    log_parameter_max_length_on_error: '0',
    log_min_error_statement: 'panic',
    ...settings,
  };
  const flags = Object.entries(all).flatMap(([name, value]) => ['-c', `${name}=${value}`]);
  return ['-D', cluster.clusterDir, ...flags];
}

/**
 * An eighth of the memory, of a machine that the server does not have to itself. Pages that are in
 * nobody's cache cost a look-up several times as much; memory is taken up only as data comes in.
 */
function sharedBuffersMegabytes(): number {
  // A container's limit; 0 or larger than the machine where there is none.
  const limit = process.constrainedMemory() || Number.POSITIVE_INFINITY;
  const eighth = Math.floor(Math.min(totalmem(), limit) / 8 / 2 ** 20);
  return Math.min(Math.max(eighth, 128), 2048);
}

async function readFailure(logPath: string, start: number): Promise<string> {
  const log = (await readFile(logPath)).subarray(start).toString();
  // "The database system is starting up" is the answer to our own attempts to connect.
  const own = log.split('\n').filter((line) => !line.includes('FATAL:  the database system is'));
  return complaintIn(own.join('\n'), 'last');
}

/**
 * One line of what a program said: initdb's first complaint is the cause and the others follow from it,
 * whereas a server can complain and go on, and ends with its last.
 */
function complaintIn(output: string, which: 'first' | 'last'): string {
  const lines = output.trim().split('\n');
  const complaints = lines.filter((line) => /(FATAL|PANIC|error): /.test(line));
  const complaint = complaints.at(which === 'first' ? 0 : -1) ?? lines.at(-1);
  return complaint?.replace(/^.*?(?=FATAL|PANIC|error: )/, '') || 'it ended without a word';
}

/**
 * Removes a `postmaster.pid` whose process id some other process has by now. PostgreSQL refuses to
 * start while that process is of the same user, which in a container, where ids start over, it often
 * is. (Backends that outlive a killed server still keep a new one out, by their shared memory.)
 */
export async function removeMisleadingPidFile(cluster: Cluster, stale: Postmaster): Promise<void> {
  if (sendSignal(stale.pid, 0)) await rm(pidPath(cluster), { force: true });
}

/** Finds a port of the loopback interface that is free at this moment. */
export function findFreePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, loopback, () => {
      const { port } = probe.address() as AddressInfo;
      probe.close(() => resolve(port));
    });
  });
}

/** Shuts the server down (fast; at once if that takes too long) and waits until it is gone. */
export async function shutDown(pid: number): Promise<void> {
  for (const [signal, seconds] of [
    ['SIGINT', 30],
    ['SIGQUIT', 10],
  ] as const) {
    sendSignal(pid, signal);
    const deadline = Date.now() + seconds * 1000;
    while (Date.now() < deadline) {
      if (!(await isPostgres(pid))) return;
      await delay(20);
    }
  }
  throw new Error(`PostgreSQL (process ${pid}) does not stop`);
}

/** @returns whether there is such a process, 0 being no signal but the question */
function sendSignal(pid: number, signal: NodeJS.Signals | 0): boolean {
  try {
    return process.kill(pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ESRCH') return false;
    if (signal === 0) return true;
    throw error;
  }
}
