/** Brings a database to the current schema, one instance at a time. */
import { MikroORM } from '@mikro-orm/postgresql';
import pg from 'pg';
import { StartUpError } from '../start-up-error.ts';
import { reasonOf, withoutSecrets } from './database.ts';
import { refuseUnfitDatabase } from './fit-database.ts';
import { MIGRATIONS_TABLE, ormConfig } from './orm.ts';

/** Any constant will do, as long as every instance uses the same. */
const MIGRATION_LOCK = 7_482_301;

/**
 * A server's own limits would end the wait, the lock's transaction or a migration of a large table. Its
 * version decides which there are.
 */
const NO_LIMITS = `
  select set_config(name, '0', true) from pg_settings
  where name in (
    'idle_in_transaction_session_timeout', 'lock_timeout', 'statement_timeout', 'transaction_timeout'
  )`;

/**
 * The schema of the applied migrations: where `search_path` finds their table, as it finds all the others, or
 * else where it puts new ones.
 */
const MIGRATIONS_SCHEMA = `
  select coalesce(
    (
      select n.nspname from pg_class c join pg_namespace n on n.oid = c.relnamespace
      where c.oid = to_regclass('${MIGRATIONS_TABLE}')
    ),
    current_schema()
  )::text as schema`;

/**
 * Applies pending migrations; answers their names.
 *
 * The mapper's migrator takes no lock, so two instances that start together would collide. The lock
 * is held on a connection of its own, by a transaction: it works through a transaction pooler and
 * goes away with its holder.
 *
 * @throws StartUpError with one line when the database cannot be reached, is unfit for use, or cannot be migrated
 */
export function migrate(databaseUrl: string): Promise<string[]> {
  return migrateAlone(databaseUrl).catch((error) => {
    if (error instanceof StartUpError) throw error;
    throw new StartUpError(
      `Cannot migrate the database at ${withoutSecrets(databaseUrl)}: ${reasonOf(error)}`,
    );
  });
}

async function migrateAlone(databaseUrl: string): Promise<string[]> {
  // Reads the files that the URL names, which may be missing.
  const lock = new pg.Client({ connectionString: databaseUrl, connectionTimeoutMillis: 5000 });
  // Without a listener a connection that breaks later would end the process.
  lock.on('error', () => {});
  try {
    await lock.connect();
    await refuseUnfitDatabase(lock);
    // In this isolation only, what the last holder has made is seen.
    await lock.query('begin isolation level read committed');
    await lock.query(NO_LIMITS);
    await lock.query('select pg_advisory_xact_lock($1)', [MIGRATION_LOCK]);
    const { rows } = await lock.query<{ schema: string | null }>(MIGRATIONS_SCHEMA);
    const schema = rows[0]?.schema ?? undefined;
    // The mapper would take it for a schema and a table, and write into what may be somebody else's.
    if (schema?.includes('.')) throw new Error(`the name of schema ${schema} has a dot`);
    return await applyPending(databaseUrl, schema);
  } finally {
    await lock.end().catch(() => {});
  }
}

async function applyPending(
  databaseUrl: string,
  migrationsSchema: string | undefined,
): Promise<string[]> {
  const orm = new MikroORM(
    ormConfig({
      databaseUrl,
      maximumConnections: 2,
      acquireTimeoutSeconds: 5,
      ...(migrationsSchema !== undefined && { migrationsSchema }),
    }),
  );
  try {
    await orm.connect();
    const pending = await orm.migrator.getPending();
    if (pending.length === 0) return [];
    const applied = await orm.em.transactional(async (em) => {
      await em.execute(NO_LIMITS);
      return orm.migrator.up({ transaction: em.getTransactionContext() });
    });
    return applied.map(({ name }) => name);
  } finally {
    await orm.close(true);
  }
}
