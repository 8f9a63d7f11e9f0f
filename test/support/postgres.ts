/** The one PostgreSQL of a test run: started before the first file, stopped after the last. */
import { resolve } from 'node:path';
import pg from 'pg';
import {
  type EmbeddedPostgres,
  startEmbeddedPostgres,
} from '../../src/storage/embedded-postgres.ts';

/** Migrated once; every test file works on a clone of it. */
export const TEMPLATE_DATABASE = 'heirloom_template';

/** Tests of crashes start a server without these. */
export const withoutDurability = {
  fsync: 'off',
  synchronous_commit: 'off',
  full_page_writes: 'off',
} as const;

/** Starts the server, or joins the one that runs. */
export const joinTestPostgres = (): Promise<EmbeddedPostgres> =>
  startEmbeddedPostgres({
    dataDir: resolve('.tap/heirloom'),
    notice: (line) => console.error(line),
    settings: withoutDurability,
  });

/** Runs statements on the maintenance database, each on its own because databases are made outside transactions. */
export async function administer(url: string, ...statements: string[]): Promise<void> {
  const client = new pg.Client({ connectionString: url });
  client.on('error', () => {});
  await client.connect();
  try {
    for (const statement of statements) await client.query(statement);
  } finally {
    await client.end();
  }
}
