/** What a database has to be before anything relies on it. */
import { randomUUID } from 'node:crypto';
import type pg from 'pg';
import { StartUpError } from '../start-up-error.ts';

/** The oldest server that is tested; anything older lacks what the statements use. */
const OLDEST_SERVER_VERSION = 15;

/** Anything else has no place for some of what people write, and refuses it in the middle of a statement. */
const FIT_ENCODINGS = ['UTF8', 'SQL_ASCII'];

/** @throws StartUpError with one line unless the database is fit to be migrated, and connections keep settings */
export async function refuseUnfitPool(pool: pg.Pool): Promise<void> {
  await refuseUnfitDatabase(pool);
  await refuseSharedSessions(pool);
}

/** @throws StartUpError with one line unless the server is new enough and holds every text */
export async function refuseUnfitDatabase(database: pg.Pool | pg.Client): Promise<void> {
  const { rows } = await database.query<{ version: number; encoding: string }>(
    `select current_setting('server_version_num')::int as version,
      current_setting('server_encoding') as encoding`,
  );
  const [{ version, encoding }] = rows as [(typeof rows)[number]];
  if (version < OLDEST_SERVER_VERSION * 10_000) {
    throw new StartUpError(
      `PostgreSQL ${Math.floor(version / 10_000)} is too old: version ${OLDEST_SERVER_VERSION} or newer is needed.`,
    );
  }
  if (!FIT_ENCODINGS.includes(encoding)) {
    throw new StartUpError(
      `The encoding of the database is ${encoding}, which cannot hold every name: UTF8 is needed.`,
    );
  }
}

/**
 * A pooler that lends sessions by the transaction would undo the settings of every connection: a statement
 * would run with those that another connection made last, or with none.
 *
 * Such a pooler hands the session that was used last to whoever asks next, so two connections find each
 * other's mark there; with others busy on it, each finds a mark of its own seldom enough.
 */
async function refuseSharedSessions(pool: pg.Pool): Promise<void> {
  const first = await pool.connect();
  try {
    const second = await pool.connect();
    try {
      const marks = [await leaveMark(first), await leaveMark(second)];
      const found = [await findMark(first), await findMark(second)];
      if (found.every((mark, index) => mark === marks[index])) return;
    } finally {
      // Nobody has asked for a second one yet.
      second.release(true);
    }
  } finally {
    first.release();
  }
  throw new StartUpError(
    'The pooler in front of the database shares sessions between connections, so their settings would be lost. ' +
      'Let it pool by session (PgBouncer: pool_mode = session), or connect to PostgreSQL itself.',
  );
}

async function leaveMark(client: pg.PoolClient): Promise<string> {
  const mark = randomUUID();
  await client.query("select set_config('heirloom.session', $1, false)", [mark]);
  return mark;
}

async function findMark(client: pg.PoolClient): Promise<string | null | undefined> {
  const { rows } = await client.query<{ mark: string | null }>(
    "select current_setting('heirloom.session', true) as mark",
  );
  return rows[0]?.mark;
}
