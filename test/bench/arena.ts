/** Everything that a run needs, started and filled: PostgreSQL, databases, servers, the load generator. */
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir, totalmem } from 'node:os';
import { join } from 'node:path';
import { loadConfig } from '../../src/config.ts';
import { createPasswordHasher } from '../../src/crypto/password-hasher.ts';
import { startEmbeddedPostgres } from '../../src/storage/embedded-postgres.ts';
import { PASSWORD } from './families.ts';
import type { Options } from './options.ts';
import type { Contestant } from './plan.ts';
import { type HelperProcess, type ServerProcess, startHelper, startServer } from './processes.ts';
import { parentOf } from './resources.ts';
import { warmCache, withClient } from './seed.ts';
import { seedHeirloom } from './seed-heirloom.ts';
import { seedOauth2Server } from './seed-oauth2-server.ts';
import { seedOidcProvider } from './seed-oidc-provider.ts';

export interface Arena {
  readonly servers: ReadonlyMap<Contestant, RunningServer>;
  readonly generator: HelperProcess;
  readonly argon2: HelperProcess;
  readonly postgres: { readonly pid: number | undefined; readonly version: string };
}

export interface RunningServer extends ServerProcess {
  readonly families: number;
  /** Servers of one database share what the load generator remembers about it. */
  readonly database: string;
}

/** How to undo what was started, newest first. */
export type CleanUp = (() => Promise<unknown>)[];

export type Progress = (subject: string, text: string) => void;

const heirloomFile = '../../src/main.ts';

/** @param cleanUp filled on the way, so that a start that fails half-way can be undone */
export async function openArena(
  options: Options,
  cleanUp: CleanUp,
  progress: Progress,
): Promise<Arena> {
  const dataDir = await mkdtemp(join(tmpdir(), 'heirloom-bench-'));
  cleanUp.unshift(() => rm(dataDir, { recursive: true, force: true }));
  // The embedded server's own user, where there is one, has to get in.
  await chmod(dataDir, 0o755);
  // As durable as in production, fsync and synchronous_commit on. The share of the memory is what
  // PostgreSQL's documentation recommends, the room for WAL what its log asks for where there is less:
  // checkpoints would follow each other within seconds, and whoever is measured would pay for the writes
  // of whoever was measured before.
  const settings = {
    shared_buffers: `${Math.floor(totalmem() / 4 / 2 ** 20)}MB`,
    max_wal_size: '8GB',
  };
  const postgres = await startEmbeddedPostgres({ dataDir, notice: console.error, settings });
  cleanUp.unshift(() => postgres.stopIfIdle());
  const adminUrl = postgres.url('postgres');
  const { pid, version } = await inspectPostgres(adminUrl);

  const { argon2 } = loadConfig({});
  const passwordHash = await createPasswordHasher(argon2, (work) => work()).hash(PASSWORD);
  const databases = await fillDatabases(
    options,
    { adminUrl, url: postgres.url, passwordHash },
    progress,
  );
  const servers = new Map<Contestant, RunningServer>();
  for (const contestant of contestantsOf(options)) {
    const { file, database, settings: ownSettings } = homes[contestant];
    const running = await startServer(file, {
      PORT: '0',
      RATE_LIMIT: 'off',
      LOG_LEVEL: 'error',
      ...(database && { DATABASE_URL: postgres.url(database) }),
      ...ownSettings,
    });
    cleanUp.unshift(() => running.stop());
    const families = databases.get(database ?? '') ?? options.families;
    servers.set(contestant, { ...running, families, database: database ?? contestant });
    progress(contestant, `listening on port ${running.port}`);
  }
  const [generator, argon2Alone] = [startHelper('generator.ts'), startHelper('argon2-alone.ts')];
  cleanUp.unshift(
    () => generator.stop(),
    () => argon2Alone.stop(),
  );
  return { servers, generator, argon2: argon2Alone, postgres: { pid, version } };
}

type ServerContestant = Exclude<Contestant, 'argon2-alone'>;

interface Home {
  readonly file: string;
  readonly database?: string;
  readonly settings?: Readonly<Record<string, string>>;
}

/** Where each server's program is, which database it gets, and what it is told besides. */
const homes: Readonly<Record<ServerContestant, Home>> = {
  heirloom: { file: heirloomFile, database: 'bench_heirloom' },
  'heirloom-small': { file: heirloomFile, database: 'bench_heirloom_small' },
  'heirloom-huge': { file: heirloomFile, database: 'bench_heirloom_huge' },
  'heirloom-with-coalescing': {
    file: 'heirloom-with-coalescing.ts',
    database: 'bench_heirloom',
  },
  'heirloom-without-coalescing': {
    file: 'heirloom-without-coalescing.ts',
    database: 'bench_heirloom',
  },
  'heirloom-from-memory': { file: 'heirloom-from-memory.ts', database: 'bench_heirloom' },
  'oidc-provider': { file: 'peer-oidc-provider.js', database: 'bench_oidc_provider' },
  // In the same database: what the generator remembers of it keeps spent tokens from either, and a copy
  // would take memory from the cache of all the others.
  'oidc-provider-static': {
    file: 'peer-oidc-provider.js',
    database: 'bench_oidc_provider',
    settings: { STATIC: 'on' },
  },
  'oauth2-server': { file: 'peer-oauth2-server.js', database: 'bench_oauth2_server' },
  'no-database': { file: 'peer-no-database.js' },
};

const contestantsOf = ({ manyFamilies }: Options): ServerContestant[] =>
  (Object.keys(homes) as ServerContestant[]).filter(
    (contestant) => contestant !== 'heirloom-huge' || manyFamilies !== undefined,
  );

/** Fills all databases at the same time; answers how many families each has. */
async function fillDatabases(
  { families, fewFamilies, manyFamilies }: Options,
  {
    adminUrl,
    url,
    passwordHash,
  }: {
    adminUrl: string;
    url: (database: string) => string;
    passwordHash: string;
  },
  progress: Progress,
): Promise<Map<string, number>> {
  const wanted = [
    { database: 'bench_heirloom', count: families, fill: seedHeirloom },
    { database: 'bench_oidc_provider', count: families, fill: seedOidcProvider },
    { database: 'bench_oauth2_server', count: families, fill: seedOauth2Server },
    { database: 'bench_heirloom_small', count: fewFamilies, fill: seedHeirloom },
    ...(manyFamilies === undefined
      ? []
      : [{ database: 'bench_heirloom_huge', count: manyFamilies, fill: seedHeirloom }]),
  ];
  await Promise.all(
    wanted.map(({ database, count, fill }) =>
      fill(adminUrl, url(database), { families: count, passwordHash }, (text) =>
        progress(database, text),
      ),
    ),
  );
  // What the seeds left to be written must not be written while something is measured, and a database
  // that is in use is in memory.
  await withClient(adminUrl, (client) => client.query('checkpoint'));
  for (const { database } of wanted) await withClient(url(database), warmCache);
  return new Map(wanted.map(({ database, count }) => [database, count]));
}

async function inspectPostgres(
  adminUrl: string,
): Promise<{ pid: number | undefined; version: string }> {
  return withClient(adminUrl, async (client) => {
    const { rows } = await client.query<{ pid: number; version: string }>(
      `select pg_backend_pid() as pid, current_setting('server_version') as version`,
    );
    const [row] = rows;
    return { pid: row && parentOf(row.pid), version: row?.version ?? 'unknown' };
  });
}
