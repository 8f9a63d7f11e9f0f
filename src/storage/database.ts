/** The connection to PostgreSQL: the mapper for administrative work, and its pool for the hot paths. */
import { setTimeout as delay } from 'node:timers/promises';
import { MikroORM } from '@mikro-orm/postgresql';
import pg from 'pg';
import { TemporarilyUnavailable } from '../oauth/errors.ts';
import { StartUpError } from '../start-up-error.ts';
import { columnTypes } from './column-types.ts';
import { refuseUnfitPool } from './fit-database.ts';
import { IDLE_CONNECTION_MILLISECONDS, ormConfig } from './orm.ts';
import { setQueryDeadline } from './query-deadline.ts';
import type { Statement } from './statement.ts';

export interface DatabaseOptions {
  readonly databaseUrl: string;
  readonly maximumConnections: number;
  readonly acquireTimeoutSeconds: number;
  readonly statementTimeoutSeconds: number;
  /** How long a statement waits for a row that another one holds. */
  readonly lockTimeoutSeconds: number;
}

/** PostgreSQL, by named statements for hot paths and by the mapper for administrative work. */
export interface Database {
  readonly orm: MikroORM;
  /**
   * Runs a named statement with bind parameters.
   *
   * @throws TemporarilyUnavailable when the database does not answer; whether a write happened is unknown
   */
  run<Row extends pg.QueryResultRow>(
    statement: Statement,
    values: readonly unknown[],
  ): Promise<Row[]>;
  /** Runs a statement for its effect; answers how many rows it touched. */
  affect(statement: Statement, values: readonly unknown[]): Promise<number>;
  /** @throws TemporarilyUnavailable unless the server answers */
  checkConnection(): Promise<void>;
  /** Runs statements in one READ COMMITTED transaction on one connection. */
  transaction<T>(work: (run: Database['run']) => Promise<T>): Promise<T>;
  close(): Promise<void>;
}

/**
 * Opens the pool and checks that the server answers and that the database is fit for use.
 *
 * @throws StartUpError with one line that names the server without its password
 */
export async function openDatabase(options: DatabaseOptions): Promise<Database> {
  let pool: pg.Pool | undefined;
  const orm = new MikroORM(
    ormConfig({
      databaseUrl: options.databaseUrl,
      maximumConnections: options.maximumConnections,
      acquireTimeoutSeconds: options.acquireTimeoutSeconds,
      onConnect: (client) => prepareConnection(client, options),
      onPoolCreated: (created) => {
        pool = created;
      },
    }),
  );
  try {
    await orm.connect();
    // The pool exists only after the first use of the connection.
    await orm.em.getConnection().execute('select');
    await refuseUnfitPool(pool as unknown as pg.Pool);
  } catch (error) {
    await orm.close(true).catch(() => {});
    if (error instanceof StartUpError) throw error;
    throw new StartUpError(
      `Cannot use the database at ${withoutSecrets(options.databaseUrl)}: ${reasonOf(error)}`,
    );
  }
  return databaseOn(orm, pool as pg.Pool, deadlineSeconds(options) + 1);
}

/**
 * @param closingSeconds how long the pool may take to end. The mapper never gives a connection back that was lost
 *   while a transaction began or was rolled back, and the pool would wait for it for ever
 */
function databaseOn(orm: MikroORM, pool: pg.Pool, closingSeconds: number): Database {
  return {
    orm,
    async run<Row extends pg.QueryResultRow>(statement: Statement, values: readonly unknown[]) {
      return (await runOn<Row>(pool, statement, values)).rows;
    },
    async affect(statement, values) {
      return (await runOn(pool, statement, values)).rowCount ?? 0;
    },
    async checkConnection() {
      const { rowCount } = await runOn(pool, checkStatement, []);
      if (rowCount !== 1) throw new TemporarilyUnavailable('database is a standby');
    },
    async transaction(work) {
      const client = await pool.connect().catch(rethrowAsUnavailable);
      let failure: unknown;
      try {
        await client.query('begin').catch(rethrowAsUnavailable);
        const result = await work(
          async <Row extends pg.QueryResultRow>(statement: Statement, values: readonly unknown[]) =>
            (await runOn<Row>(client, statement, values)).rows,
        );
        await client.query('commit').catch(rethrowAsUnavailable);
        return result;
      } catch (error) {
        failure = error;
        throw error;
      } finally {
        // A connection in an unknown state is closed, which also rolls its transaction back.
        client.release(failure !== undefined);
      }
    },
    close: () => settledWithin(closingSeconds, orm.close(true)),
  };
}

async function settledWithin(seconds: number, work: Promise<unknown>): Promise<void> {
  const settled = new AbortController();
  const { signal } = settled;
  await Promise.race([work, delay(seconds * 1000, undefined, { signal })]).finally(() =>
    settled.abort(),
  );
}

/** How long a connection's statements wait, for their answer and for rows that others hold. */
type StatementTimeouts = Pick<DatabaseOptions, 'statementTimeoutSeconds' | 'lockTimeoutSeconds'>;

/** The server gives up first, so that its answer says why; this is for a server that is not there. */
const deadlineSeconds = ({ statementTimeoutSeconds }: StatementTimeouts): number =>
  statementTimeoutSeconds + 1;

/**
 * Prepares a new connection: its settings, and a deadline for every query.
 *
 * @throws TemporarilyUnavailable on a standby. What still leads there after a switchover would stay in the pool
 *   when the address is the new primary's; no server becomes a standby while it has connections
 */
export async function prepareConnection(
  client: pg.ClientBase,
  timeouts: StatementTimeouts,
): Promise<void> {
  setQueryDeadline(client, deadlineSeconds(timeouts));
  // In one query, which has one deadline: whoever waits for a connection waits for all of this.
  const question = 'select pg_is_in_recovery() as "isStandby"';
  const answer: unknown = await client.query(`${connectionSettings(timeouts)}; ${question}`);
  const { rows } = (answer as pg.QueryResult<{ isStandby: boolean }>[]).at(-1) ?? {};
  if (rows?.[0]?.isStandby) throw new TemporarilyUnavailable('database is a standby');
}

/**
 * Settings of every connection, made before its first query.
 *
 * The hot statements find rows by key only. A plan made while tables are small would scan them, and
 * would be kept when they are large, so plans are generic and may not scan. Ending a person's families
 * relies on READ COMMITTED, whatever the database's default is.
 */
const connectionSettings = ({
  statementTimeoutSeconds,
  lockTimeoutSeconds,
}: StatementTimeouts): string =>
  [
    `set statement_timeout = '${statementTimeoutSeconds}s'`,
    `set lock_timeout = '${lockTimeoutSeconds}s'`,
    `set idle_in_transaction_session_timeout = '${statementTimeoutSeconds * 2}s'`,
    // Later than the pool by itself: whoever takes a connection that the server is ending gets no answer.
    // Known since PostgreSQL 14: an older server is to be told that it is too old, and not of this setting.
    `select set_config('idle_session_timeout', '${IDLE_CONNECTION_MILLISECONDS * 2}ms', false)
      where current_setting('idle_session_timeout', true) is not null`,
    "set default_transaction_isolation = 'read committed'",
    // Whatever the database's defaults are: in another form, digests and instants would be misread.
    "set bytea_output = 'hex'",
    'set extra_float_digits = 1',
    "set datestyle = 'ISO'",
    // Without it a crash of the database would take back what was answered: a rotation, a revocation.
    "select set_config('synchronous_commit', 'on', false) where current_setting('synchronous_commit') = 'off'",
    // Else a null in an array of text is a name of four letters, and one of ids is refused.
    'set array_nulls = on',
    'set plan_cache_mode = force_generic_plan',
    'set enable_seqscan = off',
    // Bitmap scans never mark dead index entries, so a busy family's rotations would cost ever more.
    'set enable_bitmapscan = off',
    'set enable_hashjoin = off',
    'set enable_mergejoin = off',
    // Reads all of a small table once instead of one row of it, and goes on when it is large.
    'set enable_material = off',
    // A plan that seems dear, for a large table or a scan that is off, is compiled each time it is run, which
    // can take hundreds of times as long as running it.
    'set jit = off',
  ].join('; ');

/** A standby can lag behind, and what it says of a token may have been revoked already. */
const checkStatement: Statement = {
  name: 'heirloom-check-connection',
  text: 'select from server_state where id = 1 and not pg_is_in_recovery()',
};

/** Runs a named statement. @throws TemporarilyUnavailable as `Database.run` does */
export async function runOn<Row extends pg.QueryResultRow>(
  on: pg.Pool | pg.PoolClient,
  statement: Statement,
  values: readonly unknown[],
): Promise<pg.QueryResult<Row>> {
  try {
    return await on.query<Row>({
      name: statement.name,
      text: statement.text,
      values: [...values],
      // The mapper's pool leaves instants as text; these statements want dates.
      types: columnTypes,
    });
  } catch (error) {
    return rethrowAsUnavailable(error);
  }
}

/**
 * SQLSTATE classes and codes that say nothing about the request: connection, resources, operator
 * intervention, system error, serialization, deadlock, lock not available, transaction ended by a timeout.
 */
const silence = /^(08...|53...|57...|58...|40001|40P01|55P03|25P0[34])$/;

/**
 * The same for what lasts until somebody has mended it or is done: role, database, schema, table or type not
 * there (while a backup is restored), rights missing, read-only (a failover), closed for connections.
 */
const refusal = /^(28...|3D000|3F000|42501|42704|42P01|25006|55000)$/;

/** Data exceptions, violated constraints, serialization, deadlock, lock not available, cancelled. */
const statementFailure = /^(22...|23...|40001|40P01|55P03|57014)$/;

/** Tells whether the database refused a statement, so that it has surely undone all of it. */
export function isStatementFailure(error: unknown): boolean {
  const cause = error instanceof TemporarilyUnavailable ? error.cause : error;
  return cause instanceof pg.DatabaseError && statementFailure.test(cause.code ?? '');
}

/** Tells whether a statement failed because a name is taken. */
export const isUniqueViolation = (error: unknown): boolean =>
  error instanceof pg.DatabaseError && error.code === '23505';

/** Turns trouble with the database into 503; everything else is a bug and stays what it is. */
function rethrowAsUnavailable(error: unknown): never {
  const isRefused = error instanceof pg.DatabaseError && refusal.test(error.code ?? '');
  if (isRefused) throw new TemporarilyUnavailable('database refuses', { cause: error });
  if (error instanceof pg.DatabaseError && !silence.test(error.code ?? '')) throw error;
  if (error instanceof TypeError || error instanceof TemporarilyUnavailable) throw error;
  throw new TemporarilyUnavailable('database does not answer', { cause: error });
}

/** Host and database name of a connection string. */
export function withoutSecrets(databaseUrl: string): string {
  const { hostname, port, pathname } = new URL(databaseUrl);
  return `${hostname}${port && `:${port}`}${pathname}`;
}

/** Names of the network's errors; those of files are nothing that a database has to do with. */
const networkTrouble = /^(ECONN.*|EPIPE|ETIMEDOUT|EHOSTUNREACH|ENETUNREACH|EAI_AGAIN|ENOTFOUND)$/;

/** What node-postgres and its pool say of lost and late connections, with neither class nor code. */
const connectionTrouble =
  /^(timeout exceeded when trying to connect|Connection terminated|no answer within |Client has encountered a connection error)/;

/**
 * One line about trouble with the database, for people; undefined where a failure is of any other kind.
 * Knows the mapper's failures too, which keep the codes and messages of what they are made from.
 */
export function databaseTroubleOf(error: unknown): string | undefined {
  if (error instanceof TemporarilyUnavailable) {
    return error.cause === undefined
      ? error.message
      : `${error.message} (${reasonOf(error.cause)})`;
  }
  if (!(error instanceof Error)) return undefined;
  const code = 'code' in error && error.code !== undefined ? String(error.code) : undefined;
  if (code !== undefined && refusal.test(code)) return `database refuses (${reasonOf(error)})`;
  const isSilent =
    code === undefined
      ? connectionTrouble.test(error.message)
      : networkTrouble.test(code) || silence.test(code);
  return isSilent ? `database does not answer (${reasonOf(error)})` : undefined;
}

/** One line about why a connection failed; an error with several addresses has an empty message. */
export function reasonOf(error: unknown): string {
  if (error instanceof AggregateError && error.errors.length > 0) return reasonOf(error.errors[0]);
  return error instanceof Error ? (error.message.split('\n')[0] as string) : String(error);
}
