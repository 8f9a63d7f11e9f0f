/** Fills databases by SQL: people and families whose secrets follow from their numbers (`families.ts`). */
import pg from 'pg';

/** A part of a database; `insert` is a statement over the numbers from `$1` to `$2`. */
export interface SeedPart {
  readonly what: string;
  readonly count: number;
  readonly insert: string;
  /** Bind parameters from `$3` on. */
  readonly values?: readonly unknown[];
}

/** Rows of one statement, so that progress can be shown. */
const CHUNK = 50_000;

/** SQL for the secret of a family; the same bytes as in `families.ts`, where it is needed there. */
export const secretSql = (name: 'access' | 'refresh' | 'lineage' | 'previous' | 'salt'): string =>
  `sha256(convert_to('${name}-' || n, 'UTF8'))`;
export const familyIdSql = `md5('family-' || n)::uuid`;
export const personIdSql = (person: string): string => `md5('person-' || ${person})::uuid`;

/** Creates a database and runs its schema. */
export async function createDatabase(adminUrl: string, name: string, schema = ''): Promise<void> {
  await withClient(adminUrl, (client) => client.query(`create database ${name}`));
  const url = new URL(adminUrl);
  url.pathname = name;
  await withClient(url.href, (client) => client.query(schema));
}

/** Reads a whole database into PostgreSQL's cache, where one that is in use is. */
export async function warmCache(client: pg.Client): Promise<void> {
  await client.query('create extension if not exists pg_prewarm');
  await client.query(
    `select pg_prewarm(oid) from pg_class
     where relkind in ('r', 'i', 't') and relnamespace = 'public'::regnamespace`,
  );
}

/** Inserts all parts, one after the other, and leaves the database as autovacuum would in time. */
export async function seed(
  databaseUrl: string,
  parts: readonly SeedPart[],
  progress: (text: string) => void,
): Promise<void> {
  await withClient(databaseUrl, async (client) => {
    // The seeds refer to nothing that is not there, and a million triggers would take minutes.
    await client.query('set session_replication_role = replica');
    for (const { what, count, insert, values = [] } of parts) {
      for (let from = 0; from < count; from += CHUNK) {
        await client.query(insert, [from, Math.min(count, from + CHUNK) - 1, ...values]);
        progress(`${what} ${Math.min(count, from + CHUNK).toLocaleString('en')}`);
      }
    }
    progress('vacuum');
    await client.query('vacuum (analyze)');
  });
}

export async function withClient<T>(
  url: string,
  work: (client: pg.Client) => Promise<T>,
): Promise<T> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  try {
    return await work(client);
  } finally {
    await client.end();
  }
}
