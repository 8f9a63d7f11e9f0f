/** One database per test file, cloned from the migrated template. */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import type { Test } from 'tap';
import { administer, joinTestPostgres, TEMPLATE_DATABASE } from './postgres.ts';

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
  const url = postgres.url(name);
  const inspect = new pg.Pool({ connectionString: url, max: 2 });
  inspect.on('error', () => {});
  t.teardown(async () => {
    await inspect.end();
    await administer(postgres.url('postgres'), `drop database ${name} with (force)`);
  });
  return { url, inspect };
}
