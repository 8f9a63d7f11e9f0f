/** Real processes to break: servers, and a PostgreSQL of their own that can be crashed and started again. */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import type { Test } from 'tap';
import { loadConfig } from '../../src/config.ts';
import { createDependencies, type Dependencies } from '../../src/dependencies.ts';
import { locateBinaries, prepareBinaries } from '../../src/storage/embedded-binaries.ts';
import {
  clusterIn,
  findPostmaster,
  launchServer,
  shutDown,
} from '../../src/storage/embedded-cluster.ts';
import { chooseServerPlace } from '../../src/storage/embedded-place.ts';
import { startEmbeddedPostgres } from '../../src/storage/embedded-postgres.ts';
import type { TestDatabase } from '../support/database.ts';
import { administer } from '../support/postgres.ts';

const main = join(import.meta.dirname, '../../src/main.ts');

/** What PostgreSQL does by default, said here because the other tests' server does not. */
const durable = { fsync: 'on', synchronous_commit: 'on', full_page_writes: 'on' };

export interface FaultPostgres {
  /** A migrated database, and what `arrange` made of it. */
  createDatabase(): Promise<TestDatabase>;
  /** Ends all processes of the server at once, as `pg_ctl stop -m immediate` does: no checkpoint. */
  crash(): Promise<void>;
  /** Ends it in order, whoever is connected, as `pg_ctl stop -m fast` does. */
  stop(): Promise<void>;
  /** Starts it on the same port, so that every URL stays valid, and waits until it has recovered. */
  startAgain(): Promise<void>;
}

/** Starts a PostgreSQL with full durability; the one of the other tests could lose what it acknowledged. */
export async function startPostgres(
  t: Test,
  extraSettings: Readonly<Record<string, string>> = {},
): Promise<FaultPostgres> {
  const settings = { ...durable, ...extraSettings };
  const dataDir = await mkdtemp(join(tmpdir(), 'heirloom-faults-'));
  // As root, the server runs as a user who has to pass this directory.
  await chmod(dataDir, 0o755);
  const notice = (line: string) => t.comment(line);
  const server = await startEmbeddedPostgres({ dataDir, notice, settings });
  const cluster = clusterIn(await chooseServerPlace(dataDir, () => {}));

  const signal = async (name: 'SIGINT' | 'SIGQUIT') => {
    const postmaster = await findPostmaster(cluster);
    if (postmaster?.isRunning) process.kill(postmaster.pid, name);
  };
  // A test that takes too long is ended by SIGTERM, without a teardown.
  process.once('SIGTERM', () => signal('SIGQUIT').finally(() => process.exit(1)));

  const end = async (name: 'SIGINT' | 'SIGQUIT') => {
    await signal(name);
    while ((await findPostmaster(cluster))?.isRunning) await delay(5);
  };
  const startAgain = async () => {
    const binDir = await prepareBinaries(await locateBinaries(), cluster, notice);
    let launch = await launchServer(cluster, binDir, server.port, settings);
    while (!(await findPostmaster(cluster))?.isReady) {
      // Backends that outlive the crash for a moment keep a new server out.
      if (await launch.failure()) {
        launch = await launchServer(cluster, binDir, server.port, settings);
      }
      await delay(20);
    }
  };
  t.teardown(async () => {
    const postmaster = await findPostmaster(cluster);
    if ((await server.stopIfIdle()) === 'in-use' && postmaster) await shutDown(postmaster.pid);
    await rm(dataDir, { recursive: true, force: true });
  });

  return {
    async createDatabase() {
      const name = `heirloom_${randomBytes(6).toString('hex')}`;
      await administer(server.url('postgres'), `create database ${name}`);
      const url = server.url(name);
      await arrange(url, async () => {});
      const inspect = new pg.Pool({
        connectionString: url,
        max: 4,
        application_name: 'inspect',
        // What it once has it keeps, so that a server without connections finds none that it gave up.
        idleTimeoutMillis: 0,
      });
      // Its connections break with everybody's; the query behind them is tried again.
      inspect.on('error', () => {});
      inspect.on('connect', (client) => client.on('error', () => {}));
      t.teardown(() => inspect.end());
      return { url, inspect };
    },
    crash: () => end('SIGQUIT'),
    stop: () => end('SIGINT'),
    startAgain,
  };
}

/** Does administrative work as the command line would, in a process beside the servers. */
export async function arrange<Result>(
  databaseUrl: string,
  work: (dependencies: Dependencies) => Promise<Result>,
): Promise<Result> {
  const config = loadConfig({ DATABASE_URL: databaseUrl });
  const dependencies = await createDependencies(config, { isMigrating: true, notice: () => {} });
  try {
    return await work(dependencies);
  } finally {
    await dependencies.close();
  }
}

/** Asks the database until it answers: during a fault it may not. */
export async function ask<Row extends pg.QueryResultRow>(
  { inspect }: TestDatabase,
  sql: string,
  values: unknown[] = [],
): Promise<Row[]> {
  for (let attempt = 0; ; attempt++) {
    try {
      return (await inspect.query<Row>(sql, values)).rows;
    } catch (error) {
      if (attempt >= 2000) throw error;
      await delay(20);
    }
  }
}

export interface ServerProcess {
  readonly url: string;
  readonly pid: number;
  /** Everything it has written to stdout and stderr. */
  readonly output: () => string;
  readonly hasEnded: () => boolean;
  /** SIGKILL: no handler runs, no connection is closed properly. */
  kill(): Promise<void>;
}

/**
 * Starts `node src/main.ts` and waits until it says that it listens.
 *
 * @throws Error with what it said, if it ended before that
 */
export async function startServerProcess(
  t: Test,
  databaseUrl: string,
  environment: Record<string, string> = {},
): Promise<ServerProcess> {
  const child = spawn(process.execPath, [main], {
    env: {
      PATH: process.env['PATH'],
      DATABASE_URL: databaseUrl,
      PORT: '0',
      RATE_LIMIT: 'off',
      LOG_LEVEL: 'warn',
      // As under npm: if this test is killed, its servers end, too.
      npm_lifecycle_event: 'test:faults',
      ...environment,
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.teardown(() => kill(child));
  let output = '';
  const url = await new Promise<string>((resolve, reject) => {
    const read = (chunk: string) => {
      output += chunk;
      const ready = /listening on (http:\/\/\S+)/.exec(output)?.[1];
      if (ready !== undefined) resolve(ready);
    };
    child.stdout.setEncoding('utf8').on('data', read);
    child.stderr.setEncoding('utf8').on('data', read);
    child.once('error', reject);
    child.once('exit', () => reject(new Error(`server ended: ${output}`)));
  });
  return {
    url,
    pid: child.pid as number,
    output: () => output,
    hasEnded: () => hasEnded(child),
    kill: () => kill(child),
  };
}

const hasEnded = (child: ChildProcess): boolean =>
  child.exitCode !== null || child.signalCode !== null;

async function kill(child: ChildProcess): Promise<void> {
  if (hasEnded(child)) return;
  const exit = once(child, 'exit');
  child.kill('SIGKILL');
  await exit;
}

/** A server that is started again whenever it ends, as a supervisor would. */
export interface SupervisedServer {
  /** Where it listens; undefined while it does not. */
  readonly url: () => string | undefined;
  /** Output of runs that ended without having been killed: each is a crash. */
  readonly crashes: readonly string[];
  /** Everything that all runs have written. */
  readonly output: () => string;
  readonly pid: () => number | undefined;
  /** Kills the running process; the next one is started at once, unless told otherwise. */
  kill(options?: { isStayingDown: boolean }): Promise<void>;
  /** Starts it and waits until it listens; a start that fails, because PostgreSQL is down, is repeated. */
  start(): Promise<void>;
}

export async function superviseServer(
  t: Test,
  databaseUrl: string,
  environment: Record<string, string> = {},
): Promise<SupervisedServer> {
  let running: ServerProcess | undefined;
  let isOver = false;
  let pastOutput = '';
  const crashes: string[] = [];
  t.teardown(() => {
    isOver = true;
  });
  let starting: Promise<void> | undefined;
  const startUntilUp = async () => {
    while (running === undefined && !isOver) {
      running = await startServerProcess(t, databaseUrl, environment).catch(async (error) => {
        pastOutput += error.message;
        await delay(100);
        return undefined;
      });
    }
  };
  const start = () => {
    starting ??= startUntilUp().finally(() => {
      starting = undefined;
    });
    return starting;
  };
  const noteEnd = () => {
    if (!running?.hasEnded()) return;
    crashes.push(running.output().slice(-2000));
    running = undefined;
    start();
  };
  await start();
  return {
    url: () => {
      noteEnd();
      return running?.url;
    },
    crashes,
    output: () => pastOutput + (running?.output() ?? ''),
    pid: () => {
      noteEnd();
      return running?.pid;
    },
    async kill({ isStayingDown } = { isStayingDown: false }) {
      noteEnd();
      const killed = running;
      running = undefined;
      await killed?.kill();
      pastOutput += killed?.output() ?? '';
      if (!isStayingDown) await start();
    },
    start,
  };
}

/** Waits until the condition holds; the caller's test has a timeout. */
export async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await delay(10);
}

/** Locks a family's row from outside, as an administrator's session might. */
export async function holdRow(
  { inspect }: TestDatabase,
  familyId: string,
): Promise<() => Promise<void>> {
  const holding = await inspect.connect();
  await holding.query('begin');
  await holding.query('select from token_family where id = $1 for update', [familyId]);
  return async () => {
    await holding.query('rollback');
    holding.release();
  };
}
