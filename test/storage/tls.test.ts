/** What DATABASE_URL says about TLS holds for every connection that is made to it. */
import { renameSync, writeFileSync } from 'node:fs';
import { createServer, type Socket } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { MikroORM } from '@mikro-orm/postgresql';
import t, { type Test } from 'tap';
import { loadConfig } from '../../src/config.ts';
import { TemporarilyUnavailable } from '../../src/oauth/errors.ts';
import { type Database, openDatabase } from '../../src/storage/database.ts';
import { openLoginPool } from '../../src/storage/login-pool.ts';
import { migrate } from '../../src/storage/migrate.ts';
import { ormConfig } from '../../src/storage/orm.ts';
import { createTestDatabase } from '../support/database.ts';
import { temporaryDirectory } from '../support/process.ts';

/** PostgreSQL's protocol, "SSLRequest": eight bytes before anything else is said. */
const SSL_REQUEST = '0000000804d2162f';

/** A server that has no TLS to offer, and notes with what connections begin. */
async function startWithoutTls(t: Test): Promise<{ url: string; firstBytes: string[] }> {
  const firstBytes: string[] = [];
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on('error', () => {});
    socket.once('data', (bytes: Buffer) => {
      firstBytes.push(bytes.subarray(0, 8).toString('hex'));
      socket.end('N');
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const { port } = server.address() as { port: number };
  return { url: `postgres://someone:swordfish@127.0.0.1:${port}/db`, firstBytes };
}

const statement = { name: 'none', text: 'select 1' };

const openers: Readonly<Record<string, (databaseUrl: string) => Promise<unknown>>> = {
  'the pool of the hot paths': async (databaseUrl) => {
    const database = await openDatabase({ ...loadConfig({}), databaseUrl });
    return database.run(statement, []).finally(() => database.close());
  },
  'the pool of logins': async (databaseUrl) => {
    const pool = openLoginPool({ databaseUrl, maximumConnections: 1, deadlineSeconds: 1 });
    return pool.run(statement, []).finally(() => pool.close());
  },
  'the lock of migrations': migrate,
  'the mapper itself': async (databaseUrl) => {
    const options = { databaseUrl, maximumConnections: 1, acquireTimeoutSeconds: 1 };
    const orm = await MikroORM.init(ormConfig(options));
    return orm.em.execute('select 1').finally(() => orm.close(true));
  },
};

for (const [name, open] of Object.entries(openers)) {
  t.test(`sslmode holds for ${name}`, async (t) => {
    for (const [sslmode, isTls] of [
      ['verify-full', true],
      ['require', true],
      ['disable', false],
    ] as const) {
      const { url, firstBytes } = await startWithoutTls(t);
      await t.rejects(open(`${url}?sslmode=${sslmode}`));
      t.ok(firstBytes.length > 0);
      t.ok(
        firstBytes.every((bytes) => (bytes === SSL_REQUEST) === isTls),
        sslmode,
      );
    }
    const { url, firstBytes } = await startWithoutTls(t);
    await t.rejects(open(`${url}?sslmode=require&sslrootcert=/nonexistent`));
    t.strictSame(firstBytes, [], 'without its certificates nothing is sent');
  });
}

/** What hot paths and logins have in common. */
const pools: Readonly<
  Record<string, (databaseUrl: string) => Promise<Pick<Database, 'run' | 'close'>>>
> = {
  'the pool of the hot paths': (databaseUrl) =>
    openDatabase({ ...loadConfig({}), databaseUrl, maximumConnections: 2 }),
  'the pool of logins': async (databaseUrl) =>
    openLoginPool({ databaseUrl, maximumConnections: 2, deadlineSeconds: 5 }),
};

for (const [name, open] of Object.entries(pools)) {
  t.test(
    `certificates that are away for a while fail requests, and no process: ${name}`,
    async (t) => {
      const { url, inspect } = await createTestDatabase(t);
      const file = join(temporaryDirectory(t), 'authority.crt');
      writeFileSync(file, '');
      // Read all the same; the server of the tests has no TLS.
      const pool = await open(`${url}&sslrootcert=${file}`);
      t.teardown(() => pool.close());
      const sleep = { name: 'sleep', text: 'select pg_sleep(4)' };
      const ended = [pool.run(sleep, []), pool.run(sleep, [])];
      const waiting = [pool.run(statement, []), pool.run(statement, [])];
      const all = Promise.allSettled([...ended, ...waiting]);
      const asleep = async () => {
        const { rows } = await inspect.query<{ pid: number }>(
          `select pid from pg_stat_activity
           where datname = current_database() and query = $1 and state = 'active'`,
          [sleep.text],
        );
        return rows.map(({ pid }) => pid);
      };
      while ((await asleep()).length < ended.length) await delay(20);
      renameSync(file, `${file}.away`);
      await inspect.query('select pg_terminate_backend(pid) from unnest($1::int[]) pid', [
        await asleep(),
      ]);
      t.match(await all, [
        ...ended.map(() => ({ status: 'rejected', reason: TemporarilyUnavailable })),
        ...waiting.map(() => ({ status: 'rejected', reason: { cause: { code: 'ENOENT' } } })),
      ]);
      renameSync(`${file}.away`, file);
      t.match(await pool.run(statement, []), [{}], 'and are read again');
    },
  );
}
