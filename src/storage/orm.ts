/** How MikroORM is configured, for the server, its migrations and the mapper's own command line alike. */
import { Migrator } from '@mikro-orm/migrations';
import { defineConfig } from '@mikro-orm/postgresql';
import type { ClientBase, Pool } from 'pg';
import { migrations } from '../../migrations/index.ts';
import { entities } from './entities.ts';
import { PoolClient } from './pool-client.ts';

/**
 * How long a connection is kept that nobody needs. After that its next request would wait for a handshake,
 * and PostgreSQL start over with plans and page tables; common networks forget a silent one after 350 s.
 */
export const IDLE_CONNECTION_MILLISECONDS = 300_000;

export interface OrmOptions {
  readonly databaseUrl: string;
  readonly maximumConnections: number;
  /** How long a request waits for a free connection, and a connection for the server. */
  readonly acquireTimeoutSeconds: number;
  /** Prepares every new connection before it is used. */
  readonly onConnect?: (client: ClientBase) => Promise<unknown>;
  readonly onPoolCreated?: (pool: Pool) => void;
  /** Where the table of applied migrations is or belongs; the mapper looks for it in `public` only. */
  readonly migrationsSchema?: string;
}

/** Lists the applied migrations; the mapper's own name for it. */
export const MIGRATIONS_TABLE = 'mikro_orm_migrations';

/** Builds the mapper's configuration. Migrations are listed, not globbed, so a packed install has them. */
export function ormConfig(options: OrmOptions) {
  return defineConfig({
    clientUrl: options.databaseUrl,
    entities: [...entities],
    extensions: [Migrator],
    pool: {
      min: 0,
      max: options.maximumConnections,
      idleTimeoutMillis: IDLE_CONNECTION_MILLISECONDS,
    },
    driverOptions: {
      // The mapper reads host, user and database from the URL and leaves out the rest: `sslmode` above all.
      connectionString: options.databaseUrl,
      Client: PoolClient,
      connectionTimeoutMillis: options.acquireTimeoutSeconds * 1000,
      application_name: 'heirloom',
      ...(options.onConnect && { onConnect: options.onConnect }),
      ...(options.onPoolCreated && { onPoolCreated: options.onPoolCreated }),
    },
    migrations: {
      migrationsList: migrations,
      tableName: [options.migrationsSchema ?? [], MIGRATIONS_TABLE].flat().join('.'),
      snapshot: false,
      dropTables: false,
    },
    // The mapper prints to the console otherwise; failures reach the log as errors.
    logger: () => {},
    debug: false,
  });
}
