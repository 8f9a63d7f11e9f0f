/** Databases in which `search_path` leads to another schema than `public`. */
import pg from 'pg';
import t, { type Test } from 'tap';
import { migrate } from '../../src/storage/migrate.ts';
import { createTestDatabase } from '../support/database.ts';
import { createCast, login } from '../support/fixtures.ts';
import { administer } from '../support/postgres.ts';
import { startServer } from '../support/server.ts';

/** An empty database, with schemas. */
async function createEmptyDatabase(t: Test, ...schemas: readonly string[]): Promise<string> {
  const { url } = await createTestDatabase(t, 'template0');
  await administer(url, ...schemas.map((schema) => `create schema ${schema}`));
  return url;
}

/** The same database for whoever finds tables by another path. */
function along(path: string, databaseUrl: string): string {
  const url = new URL(databaseUrl);
  url.searchParams.set('options', `-c search_path=${path}`);
  return url.href;
}

t.test('instances start again where their tables are in a schema of their own', async (t) => {
  const url = await createEmptyDatabase(t, 'auth');
  const name = new URL(url).pathname.slice(1);
  await administer(url, `alter database ${name} set search_path = auth, public`);
  t.not((await migrate(url)).length, 0);
  t.strictSame(await migrate(url), [], 'migrated before');
});

t.test('two installations share a database by a schema for each', async (t) => {
  const url = await createEmptyDatabase(t, 'one', 'two');
  const urls = ['one', 'two'].map((schema) => along(schema, url));
  for (const own of urls) {
    t.not((await migrate(own)).length, 0);
    t.strictSame(await migrate(own), []);
    const inspect = new pg.Pool({ connectionString: own, max: 1 });
    t.teardown(() => inspect.end());
    const server = await startServer(t, { database: { url: own, inspect } });
    const { c1 } = await createCast(server);
    t.equal((await login(server, c1)).status, 200, 'with people and clients of its own');
  }
});

t.test('tables that are in use are found, whatever schema comes before theirs', async (t) => {
  const url = await createEmptyDatabase(t, 'app');
  const applied = await migrate(url);
  t.not(applied.length, 0);
  t.strictSame(await migrate(along('app,public', url)), [], 'a schema that was made later');
});

t.test(
  'a schema with a dot in its name is refused, and not taken for a table in another one',
  async (t) => {
    const url = await createEmptyDatabase(t, '"shop.item"', 'shop');
    await administer(url, 'create table shop.item (id int, name text, executed_at timestamptz)');
    await t.rejects(migrate(along('"shop.item"', url)), {
      name: 'StartUpError',
      message: /^Cannot migrate the database at [^\n]+: the name of schema shop\.item has a dot$/,
    });
  },
);
