/** Databases that are not as one expects: other defaults, read-only, closed; and addresses that are none. */
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { post } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import {
  ALICE_PASSWORD,
  createCast,
  introspect,
  login,
  refresh,
  revoke,
} from '../support/fixtures.ts';
import { matchEach } from '../support/match.ts';
import { startProxy } from '../support/proxy.ts';
import { startServer } from '../support/server.ts';

/** Runs a statement about the database itself, by its name. */
const alter = async (
  inspect: Awaited<ReturnType<typeof createTestDatabase>>['inspect'],
  change: string,
) => {
  const { rows } = await inspect.query<{ name: string }>('select current_database() as name');
  await inspect.query(`alter database ${rows[0]?.name} ${change}`);
};

t.test(
  'a login in flight does not outlive a password change, whatever isolation is the default',
  async (t) => {
    const database = await createTestDatabase(t);
    await alter(database.inspect, "set default_transaction_isolation = 'repeatable read'");
    const server = await startServer(t, { database });
    const cast = await createCast(server);
    const { resourceOwners } = server.dependencies;
    for (let round = 0; round < 20; round++) {
      const logins = Array.from({ length: 4 }, () => login(server, cast.c1));
      await resourceOwners.setPassword('alice', ALICE_PASSWORD);
      for (const answer of await Promise.all(logins)) {
        if (answer.status !== 200) continue;
        const { rows } = await database.inspect.query<{ isOld: boolean }>(
          `select revoked_at is not null or started_at > (
           select max(revoked_at) from token_family where revocation_reason = 'password_changed'
         ) as "isOld" from token_family`,
        );
        t.ok(
          rows.every(({ isOld }) => isOld !== false),
          'revoked, or begun after the change',
        );
      }
    }
  },
);

t.test('tokens are good whatever form values have by default', async (t) => {
  const database = await createTestDatabase(t);
  await alter(database.inspect, "set bytea_output = 'escape'");
  await alter(database.inspect, 'set extra_float_digits = -15');
  await alter(database.inspect, "set datestyle = 'SQL, DMY'");
  const server = await startServer(t, { database });
  const { c1 } = await createCast(server);
  const first = (await login(server, c1)).body;
  const { status, body } = await refresh(server, c1, first.refresh_token);
  t.equal(status, 200);
  t.match(await introspect(server, c1, body.access_token), { body: { active: true } });
  t.equal((await revoke(server, c1, body.refresh_token)).status, 200);
  t.strictSame((await introspect(server, c1, body.access_token)).body, { active: false });
});

t.test(
  'a stranger is refused like a wrong password, whatever a null in an array is by default',
  async (t) => {
    const database = await createTestDatabase(t);
    await alter(database.inspect, 'set array_nulls = off');
    const server = await startServer(t, { database });
    const { c1 } = await createCast(server);
    const wrong = await login(server, c1, { password: 'not the password of alice' });
    const unknown = await login(server, c1, { username: 'nobody' });
    t.equal(unknown.status, 400);
    t.strictSame(unknown.body, wrong.body);
  },
);

t.test('no request meets a connection that the server ends for being idle', async (t) => {
  const database = await createTestDatabase(t);
  await alter(database.inspect, "set idle_session_timeout = '500ms'");
  const { dependencies } = await startServer(t, { database });
  const session = () =>
    dependencies.database.run({ name: 'session', text: 'select pg_backend_pid() as id' }, []);
  const used = await session();
  await delay(1500);
  t.strictSame(await session(), used, 'the same session as before');
});

t.test('no statement is compiled, whatever the default', async (t) => {
  const database = await createTestDatabase(t);
  await alter(database.inspect, 'set jit = on');
  const { dependencies } = await startServer(t, { database });
  const settings = await dependencies.database.run({ name: 'jit', text: 'show jit' }, []);
  t.strictSame(settings, [{ jit: 'off' }]);
});

t.test(
  'what is answered is on disk, whatever the default, and no less than asked for',
  async (t) => {
    const database = await createTestDatabase(t);
    for (const [whoseDefault, own] of [
      ['off', 'on'],
      ['local', 'local'],
      ['remote_apply', 'remote_apply'],
    ]) {
      await alter(database.inspect, `set synchronous_commit = ${whoseDefault}`);
      const { dependencies } = await startServer(t, { database });
      const statement = { name: 'commit', text: 'show synchronous_commit' };
      const settings = await dependencies.database.run(statement, []);
      t.strictSame(settings, [{ synchronous_commit: own }]);
    }
  },
);

t.test('a read-only database is 503 and no verdict', async (t) => {
  const database = await createTestDatabase(t);
  const server = await startServer(t, { database });
  const cast = await createCast(server);
  const { body } = await login(server, cast.c1);
  await alter(database.inspect, 'set default_transaction_read_only = on');
  const frozen = await startServer(t, { database }).catch(() => undefined);
  t.equal(frozen, undefined, 'a server does not even start on it');
  await database.inspect.query(
    'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
  );
  for (const answer of [
    await login(server, cast.c1),
    await refresh(server, cast.c1, body.refresh_token),
    await revoke(server, cast.c1, body.refresh_token),
  ]) {
    t.equal(answer.status, 503);
    t.match(answer.headers.get('retry-after'), /^\d+$/);
  }
});

t.test(
  'while a backup is being restored the answer is 503, and what was issued goes on',
  async (t) => {
    const database = await createTestDatabase(t);
    const server = await startServer(t, { database });
    const { c1 } = await createCast(server);
    const { body } = await login(server, c1);
    await database.inspect.query('alter table token_family rename to token_family_restored');
    for (const answer of [
      await login(server, c1),
      await refresh(server, c1, body.refresh_token),
      await introspect(server, c1, body.access_token),
      await revoke(server, c1, body.refresh_token),
    ]) {
      t.equal(answer.status, 503);
      t.match(answer.headers.get('retry-after'), /^\d+$/);
    }
    const [line] = server.logs.map((line) => JSON.parse(line)).filter(({ level }) => level >= 50);
    t.match(line, { detail: 'database refuses', cause: [/"token_family" does not exist/] });
    await database.inspect.query('alter table token_family_restored rename to token_family');
    t.equal((await refresh(server, c1, body.refresh_token)).status, 200);
  },
);

t.test('an outage is a line a second in the log, however many requests meet it', async (t) => {
  const database = await createTestDatabase(t);
  const server = await startServer(t, { database });
  const { c1 } = await createCast(server);
  const { body } = await login(server, c1);
  await alter(database.inspect, 'set default_transaction_read_only = on');
  await database.inspect.query(
    'select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()',
  );
  const began = performance.now();
  for (let n = 0; n < 30; n++) {
    t.equal((await refresh(server, c1, body.refresh_token)).status, 503);
  }
  const seconds = Math.ceil((performance.now() - began) / 1000);
  const lines = server.logs.map((line) => JSON.parse(line)).filter(({ level }) => level >= 50);
  // A connection that was just ended may be met once more, which is trouble of another kind.
  for (const detail of new Set(lines.map((line) => line.detail))) {
    const { length } = lines.filter((line) => line.detail === detail);
    t.ok(length <= seconds, `${length} lines in ${seconds} s: ${detail}`);
  }
  t.match(lines, [{ event: 'unavailable', cause: [String], path: '/token', unwritten: 0 }]);
});

t.test('trouble of another kind is told at once, whatever was told a moment ago', async (t) => {
  const database = await createTestDatabase(t);
  const proxy = await startProxy(t, database.url);
  const server = await startServer(t, { database: { ...database, url: proxy.url } });
  const { c1 } = await createCast(server);
  const { body } = await login(server, c1);
  const details = () =>
    server.logs.map((line) => JSON.parse(line)).filter(({ event }) => event === 'unavailable');
  await database.inspect.query('alter table token_family rename to token_family_restored');
  t.equal((await refresh(server, c1, body.refresh_token)).status, 503);
  proxy.cut();
  t.equal((await refresh(server, c1, body.refresh_token)).status, 503);
  matchEach(t, details(), [
    { detail: 'database refuses', unwritten: 0 },
    { detail: 'database does not answer', unwritten: 0 },
  ]);
});

t.test(
  '503 is what says nothing about the request, 500 what somebody has to look at',
  async (t) => {
    const server = await startServer(t);
    const { c1 } = await createCast(server);
    const { refresh_token: token } = (await login(server, c1)).body;
    const failWith = (code: string) =>
      server.inspect.query(
        `create or replace function fail() returns trigger language plpgsql
       as $$ begin raise exception 'made up' using errcode = '${code}'; end $$`,
      );
    await failWith('P0001');
    await server.inspect.query(
      'create trigger fail before update on token_family for each row execute function fail()',
    );
    const kinds = {
      503: {
        connection: ['08000', '08003', '08006', '08P01'],
        resources: ['53000', '53100', '53200', '53300'],
        'operator intervention': ['57014', '57P01', '57P02', '57P03', '57P05'],
        system: ['58000', '58030'],
        'others that are at work': ['40001', '40P01', '55P03'],
        'a timeout ended the transaction': ['25P03', '25P04'],
        'what somebody will have mended': ['28000', '28P01', '3D000', '3F000', '42501', '42704'],
        'what will be there again': ['42P01', '25006', '55000'],
      },
      500: {
        data: ['22003', '22P02'],
        constraints: ['23502', '23505', '23514'],
        'the statement itself': ['42601', '42703', '42883', '25P01', '25P02', '55006'],
        'anything else': ['P0001', 'XX000'],
      },
    };
    for (const [expected, codes] of Object.entries(kinds)) {
      for (const [kind, each] of Object.entries(codes)) {
        for (const code of each) {
          await failWith(code);
          const { status } = await refresh(server, c1, token);
          t.equal(status, Number(expected), `${code}: ${kind}`);
        }
      }
    }
    await server.inspect.query('drop trigger fail on token_family');
    t.equal((await refresh(server, c1, token)).status, 200, 'and none of them ends the session');
  },
);

t.test('a forwarded address that is none is not believed', async (t) => {
  const server = await startServer(t, { trustProxy: 1 });
  const cast = await createCast(server);
  const { body } = await login(server, cast.p1);
  const present = (refresh_token: string) =>
    post(
      `${server.url}/token`,
      { grant_type: 'refresh_token', client_id: cast.p1.id, refresh_token },
      { 'x-forwarded-for': 'x'.repeat(9000) },
    );
  const second = (await present(body.refresh_token)).body;
  await present(second.refresh_token);
  t.equal((await present(body.refresh_token)).status, 400, 'a replay ends the family all the same');
  t.equal((await introspect(server, cast.c1, second.access_token)).body.active, false);
  const { rows } = await server.inspect.query('select address from security_event');
  t.strictSame(rows, [{ address: '127.0.0.1' }]);
});
