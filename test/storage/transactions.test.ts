/** Transactions on shared connections: what fails is undone, what follows is not, and nobody holds rows for ever. */
import t, { type Test } from 'tap';
import { loadConfig } from '../../src/config.ts';
import { TemporarilyUnavailable } from '../../src/oauth/errors.ts';
import { type DatabaseOptions, openDatabase } from '../../src/storage/database.ts';
import { createTestDatabase } from '../support/database.ts';

/** A database with a table to write into. Its pool gives whoever comes next the connection that was used last. */
async function startScene(t: Test, settings: Partial<DatabaseOptions> = {}) {
  const { url: databaseUrl, inspect } = await createTestDatabase(t);
  await inspect.query('create table note (text text primary key)');
  const options = { ...loadConfig({}), databaseUrl, ...settings };
  const database = await openDatabase(options);
  t.teardown(() => database.close());
  const write = { name: 'write', text: 'insert into note values ($1)' };
  const notes = async () =>
    (await inspect.query<{ text: string }>('select text from note order by 1')).rows.map(
      ({ text }) => text,
    );
  return { database, inspect, write, notes };
}

const sleep = { name: 'sleep', text: 'select pg_sleep(600)' };

t.test('what fails is undone, and what is written after it stays', async (t) => {
  const { database, write, notes } = await startScene(t);
  const bug = new Error('a bug of ours');
  const failed = database.transaction(async (run) => {
    await run(write, ['undone']);
    throw bug;
  });
  await t.rejects(failed, bug);
  await database.run(write, ['by itself']);
  await database.transaction((run) => run(write, ['in a transaction']));
  t.strictSame(await notes(), ['by itself', 'in a transaction']);
});

t.test('one that succeeds costs no connection', async (t) => {
  const { database } = await startScene(t);
  const backend = { name: 'backend', text: 'select pg_backend_pid() as pid' };
  const first = await database.transaction((run) => run(backend, []));
  t.strictSame(await database.run(backend, []), first);
});

t.test('a statement that takes too long ends at the server, too', async (t) => {
  const { database, inspect } = await startScene(t, { statementTimeoutSeconds: 1 });
  const failure = await database.run(sleep, []).catch((error) => error);
  t.type(failure, TemporarilyUnavailable);
  // PostgreSQL would not notice that nobody waits any more, and soon have no connection left.
  const { rows } = await inspect.query(
    `select pid from pg_stat_activity
     where datname = current_database() and state = 'active' and query = $1`,
    [sleep.text],
  );
  t.strictSame(rows, []);
});

t.test(
  'a row that another one holds is not waited for as long as a statement may take',
  async (t) => {
    const { database, inspect, write } = await startScene(t, { lockTimeoutSeconds: 0.1 });
    await inspect.query("begin; insert into note values ('held')");
    const failure = await database.run(write, ['held']).catch((error) => error);
    await inspect.query('rollback');
    t.match(failure, { cause: { code: '55P03' } }, 'lock_not_available, and no timeout');
  },
);

t.test('an instance that stands still in a transaction lets go of its rows', async (t) => {
  const { database, inspect, write, notes } = await startScene(t, { statementTimeoutSeconds: 1 });
  const stalled = database.transaction(async (run) => {
    await run(write, ['first']);
    // Another instance, which waits for the row.
    await inspect.query("set statement_timeout = '60s'; insert into note values ('first')");
    await run(write, ['second']);
  });
  await t.rejects(stalled, TemporarilyUnavailable);
  t.strictSame(await notes(), ['first'], 'the other one has written');
});
