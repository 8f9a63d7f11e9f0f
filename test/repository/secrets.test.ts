/** After a run of everything, no table and no log line holds a token, a password or a client secret. */
import t from 'tap';
import { findSecrets } from '../support/canaries.ts';
import { post } from '../support/client.ts';
import {
  ALICE_PASSWORD,
  createCast,
  introspect,
  login,
  refresh,
  revoke,
} from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t, { logLevel: 'trace' });
const cast = await createCast(server);

const secrets = new Set<string>([ALICE_PASSWORD, cast.c1.secret, cast.rs1.secret]);

t.before(async () => {
  const first = await login(server, cast.c1, { device_label: 'phone' });
  const second = await refresh(server, cast.c1, first.body.refresh_token);
  const retried = await refresh(server, cast.c1, first.body.refresh_token, { scope: 'read' });
  const other = await login(server, cast.p1);
  const another = await login(server, cast.p1);
  for (const { body } of [first, second, retried, other, another]) {
    secrets.add(body.access_token).add(body.refresh_token);
  }
  await introspect(server, cast.rs1, second.body.access_token);
  await revoke(server, cast.p1, another.body.access_token);
  await revoke(server, cast.p1, another.body.refresh_token);
  // Every kind of failure that sees a secret.
  await refresh(server, cast.c2, other.body.refresh_token);
  const third = await refresh(server, cast.p1, other.body.refresh_token);
  secrets.add(third.body.access_token).add(third.body.refresh_token);
  const fourth = await refresh(server, cast.p1, third.body.refresh_token);
  secrets.add(fourth.body.access_token).add(fourth.body.refresh_token);
  t.equal((await refresh(server, cast.p1, other.body.refresh_token)).status, 400, 'a replay');
  const wrong = 'a wrong password of alice';
  secrets.add(wrong);
  await login(server, cast.c1, { password: wrong });
  const wrongSecret = 'hcs_a-wrong-secret-of-this-client';
  secrets.add(wrongSecret);
  await login(server, { id: 'C1', secret: wrongSecret });
  await post(`${server.url}/token?access_token=${third.body.access_token}`, { password: wrong });
  await post(`${server.url}/${third.body.access_token}`, {});
});

const findings = (text: string): string[] => findSecrets(secrets, text);

t.test('STO-01 RFC 6749 §10.3: no table holds a secret in any encoding', async (t) => {
  const { rows: tables } = await server.inspect.query<{ name: string }>(
    "select quote_ident(tablename) as name from pg_tables where schemaname = 'public'",
  );
  t.ok(tables.length >= 8);
  let characters = 0;
  for (const { name } of tables) {
    const { rows } = await server.inspect.query<{ row: string }>(
      `select t::text as row from ${name} t`,
    );
    const text = rows.map(({ row }) => row).join('\n');
    characters += text.length;
    t.strictSame(findings(text), [], name);
  }
  t.ok(characters > 2000, 'there was something to read');
});

t.test('STO-03 ASVS 11.4.2: passwords are argon2id with a salt of their own', async (t) => {
  const { rows } = await server.inspect.query<{ hash: string }>(
    'select password_hash as hash from resource_owner',
  );
  for (const { hash } of rows) t.match(hash, /^\$argon2id\$v=19\$m=\d+,t=\d+,p=\d+\$[\w+/]{22,}\$/);
  t.equal(new Set(rows.map(({ hash }) => hash.split('$')[4])).size, rows.length);
});

t.test('LOG-02 ASVS 16.2.5: no log line holds a secret, even at trace', async (t) => {
  const text = server.logs.join('');
  t.ok(server.logs.length > 10);
  t.match(text, 'refresh_token_replay');
  t.strictSame(findings(text), []);
});

t.test('the search finds what it looks for', async (t) => {
  const [secret] = [...secrets];
  t.not(findings(`… ${Buffer.from(secret as string).toString('base64')} …`).length, 0);
  t.not(findings(`… ${Buffer.from(secret as string).toString('hex')} …`).length, 0);
});
