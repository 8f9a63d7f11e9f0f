/** Databases that are not as one expects: other defaults, read-only, closed; and addresses that are none. */
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

t.test('no statement is compiled, whatever the default', async (t) => {
  const database = await createTestDatabase(t);
  await alter(database.inspect, 'set jit = on');
  const { dependencies } = await startServer(t, { database });
  const settings = await dependencies.database.run({ name: 'jit', text: 'show jit' }, []);
  t.strictSame(settings, [{ jit: 'off' }]);
});

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
  t.ok(lines.length <= seconds, `${lines.length} lines in ${seconds} s`);
  t.match(lines, [{ event: 'unavailable', cause: [String], path: '/token', unwritten: 0 }]);
});

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
