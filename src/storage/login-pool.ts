/** A few connections for logins until their password is verified: work that anybody can cause at will. */
import pg from 'pg';
import { type Database, prepareConnection, runOn } from './database.ts';
import { IDLE_CONNECTION_MILLISECONDS } from './orm.ts';
import { PoolClient } from './pool-client.ts';

export interface LoginPoolOptions {
  readonly databaseUrl: string;
  readonly maximumConnections: number;
  /** For a connection, and for a statement; whoever waits for it is answered 503. */
  readonly deadlineSeconds: number;
}

export type LoginPool = Pick<Database, 'run' | 'affect' | 'close'>;

/** Bounds of what logins share statements for, see `coalescer.ts`. */
export interface LoginBounds {
  readonly maximumBatch: number;
  readonly maximumWaiting: number;
  /** As many as the pool has connections. */
  readonly maximumInFlight: number;
}

/** Opens no connection before it is asked for something. */
export function openLoginPool(options: LoginPoolOptions): LoginPool {
  const { databaseUrl, maximumConnections, deadlineSeconds } = options;
  const timeouts = {
    statementTimeoutSeconds: deadlineSeconds,
    lockTimeoutSeconds: deadlineSeconds,
  };
  const pool = new pg.Pool({
    connectionString: databaseUrl,
    Client: PoolClient,
    max: maximumConnections,
    idleTimeoutMillis: IDLE_CONNECTION_MILLISECONDS,
    application_name: 'heirloom',
    connectionTimeoutMillis: deadlineSeconds * 1000,
    onConnect: (client) => prepareConnection(client, timeouts),
  });
  // A connection that is lost is noticed by whoever uses it; unheard errors would end the process.
  pool.on('error', () => {});
  pool.on('connect', (client) => client.on('error', () => {}));
  return {
    run: async <Row extends pg.QueryResultRow>(
      ...[statement, values]: Parameters<Database['run']>
    ) => (await runOn<Row>(pool, statement, values)).rows,
    affect: async (statement, values) => (await runOn(pool, statement, values)).rowCount ?? 0,
    async close() {
      if (!pool.ending) await pool.end();
    },
  };
}
