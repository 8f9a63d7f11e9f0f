/** On a connection that has fallen silent no query waits for ever, and nobody gets that connection again. */
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { loadConfig } from '../../src/config.ts';
import { type Database, openDatabase } from '../../src/storage/database.ts';
import { openLoginPool } from '../../src/storage/login-pool.ts';
import { createTestDatabase } from '../support/database.ts';
import { startProxy, type Proxy as TcpProxy } from '../support/proxy.ts';

const TIMEOUT_SECONDS = 0.2;

type Ask = () => Promise<unknown>;

async function open(t: Test): Promise<{ proxy: TcpProxy; database: Database }> {
  const proxy = await startProxy(t, (await createTestDatabase(t)).url);
  const database = await openDatabase({
    ...loadConfig({}),
    databaseUrl: proxy.url,
    statementTimeoutSeconds: TIMEOUT_SECONDS,
  });
  t.teardown(() => database.close());
  return { proxy, database };
}

async function survivesSilence(t: Test, proxy: TcpProxy, ask: Ask): Promise<void> {
  await ask();
  proxy.silence();
  const failure = await ask().catch((error: Error) => error);
  t.match(`${failure} ${(failure as Error).cause}`, /no answer within 1\.2 s/);
  await t.resolves(ask(), 'the next one has another connection');
}

const statement = { name: 'one', text: 'select 1' };

t.test('named statements', async (t) => {
  const { proxy, database } = await open(t);
  await survivesSilence(t, proxy, () => database.run(statement, []));
});

t.test('statements of a transaction', async (t) => {
  const { proxy, database } = await open(t);
  await survivesSilence(t, proxy, () => database.transaction((run) => run(statement, [])));
});

t.test('queries of the mapper', async (t) => {
  const { proxy, database } = await open(t);
  await survivesSilence(t, proxy, () => database.orm.em.getConnection().execute('select 1'));
});

t.test('statements of logins', async (t) => {
  const proxy = await startProxy(t, (await createTestDatabase(t)).url);
  const pool = openLoginPool({
    databaseUrl: proxy.url,
    maximumConnections: 1,
    deadlineSeconds: TIMEOUT_SECONDS,
  });
  t.teardown(() => pool.close());
  await survivesSilence(t, proxy, () => pool.run(statement, []));
});

t.test(
  'a connection is ready after one query, or whoever waits for it could wait twice',
  async (t) => {
    const kinds: string[] = [];
    const { url } = await startProxy(t, (await createTestDatabase(t)).url, (chunk) => {
      // PostgreSQL's protocol, "Query" and "Parse": what a client's message begins with.
      const kind = String.fromCharCode(chunk[0] as number);
      if (/[QP]/.test(kind)) kinds.push(kind);
    });
    const pool = openLoginPool({ databaseUrl: url, maximumConnections: 1, deadlineSeconds: 5 });
    t.teardown(() => pool.close());
    await pool.run(statement, []);
    t.strictSame(kinds, ['Q', 'P']);
  },
);

t.test('a query that was answered in time leaves its connection alone', async (t) => {
  const { database } = await open(t);
  const backend = async () => {
    const [row] = await database.run<{ pid: number }>(
      { name: 'pid', text: 'select pg_backend_pid() as pid' },
      [],
    );
    return row?.pid;
  };
  const before = await backend();
  await delay((TIMEOUT_SECONDS + 1.2) * 1000);
  t.equal(await backend(), before);
});

t.test('a query that cannot be written fails by itself', async (t) => {
  const { database } = await open(t);
  const circular: { self?: unknown } = {};
  circular.self = circular;
  await t.rejects(
    database.run({ name: 'circular', text: 'select $1::text' }, [circular]),
    TypeError,
  );
  await t.resolves(database.run(statement, []));
});
