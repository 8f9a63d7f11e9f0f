/** One database per test file, cloned from the migrated template. */
import { randomBytes } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import type { Test } from 'tap';
import { startEmbeddedPostgres } from '../../src/storage/embedded-postgres.ts';
import { migrate } from '../../src/storage/migrate.ts';
import { administer, joinTestPostgres, TEMPLATE_DATABASE, withoutDurability } from './postgres.ts';
import { temporaryDirectory } from './process.ts';

export interface TestDatabase {
  readonly url: string;
  /** A plain connection to arrange and inspect; the product's own code never uses it. */
  readonly inspect: pg.Pool;
}

export async function createTestDatabase(
  t: Test,
  template = TEMPLATE_DATABASE,
): Promise<TestDatabase> {
  const postgres = await joinTestPostgres();
  const name = `heirloom_test_${randomBytes(6).toString('hex')}`;
  await administer(postgres.url('postgres'), `create database ${name} template ${template}`);
  t.teardown(() => administer(postgres.url('postgres'), `drop database ${name} with (force)`));
  return databaseAt(t, postgres.url(name));
}

/** A database on a server of its own, for what tests on the same server would disturb or write into. */
export async function createLonelyDatabase(
  t: Test,
  settings: Readonly<Record<string, string>> = {},
): Promise<TestDatabase & { readonly readLog: () => string }> {
  const dataDir = temporaryDirectory(t);
  const postgres = await startEmbeddedPostgres({
    dataDir,
    notice: () => {},
    settings: { ...withoutDurability, ...settings },
  });
  t.teardown(() => postgres.stopIfIdle());
  const url = postgres.url('heirloom');
  await migrate(url);
  const readLog = () => readFileSync(join(dataDir, 'postgresql-18/server.log'), 'utf8');
  return { ...databaseAt(t, url), readLog };
}

function databaseAt(t: Test, url: string): TestDatabase {
  const inspect = new pg.Pool({ connectionString: url, max: 2 });
  inspect.on('error', () => {});
  t.teardown(() => inspect.end());
  return { url, inspect };
}
