/** What lies in the database: nothing that works, nothing that stays for ever, and no right too many. */
import { randomBytes } from 'node:crypto';
import pg from 'pg';
import t from 'tap';
import { digest } from '../../src/oauth/opaque-token.ts';
import { prune } from '../../src/storage/prune.ts';
import { post } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import { createCast, introspect, login, refresh, revoke } from '../support/fixtures.ts';
import { serve } from '../support/process.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t, { isRateLimitOn: false });
const cast = await createCast(server);
const { c1, p1 } = cast;

/** Every value of every table, as text. */
async function dump(): Promise<string[]> {
  const { rows: tables } = await server.inspect.query<{ name: string }>(
    "select quote_ident(tablename) as name from pg_tables where schemaname = 'public'",
  );
  const values = new Set<string>();
  for (const { name } of tables) {
    const { rows } = await server.inspect.query<{ row: Record<string, unknown> }>(
      `select to_jsonb(t) as row from ${name} t`,
    );
    for (const { row } of rows) {
      for (const value of Object.values(row).flat()) values.add(String(value));
    }
  }
  return [...values];
}

t.test('STO-02 RFC 6819 §4.5.2: no string of a dump works as a token or a secret', async (t) => {
  const { body } = await login(server, c1);
  await refresh(server, c1, body.refresh_token);
  const candidates = new Set<string>();
  for (const value of await dump()) {
    candidates.add(value);
    const hex = /^\\x([0-9a-f]+)$/.exec(value)?.[1];
    if (hex === undefined) continue;
    const text = Buffer.from(hex, 'hex').toString('base64url');
    for (const form of [hex, text, `hat_${text}`, `hrt_${text}`, `hcs_${text}`])
      candidates.add(form);
  }
  t.ok(candidates.size > 50);
  for (const candidate of candidates) {
    t.equal((await introspect(server, c1, candidate)).body?.active ?? false, false);
    t.equal((await refresh(server, c1, candidate)).status, 400);
    t.equal((await introspect(server, { id: c1.id, secret: candidate }, 'x')).status >= 400, true);
  }
});

t.test('STO-04 RFC 6819 §5.1.4.1.3: a client secret is stored as its SHA-256', async (t) => {
  const { rows } = await server.inspect.query<{ digest: Buffer }>(
    "select s.digest from client_secret s join client c on c.key = s.client_key where c.client_id = 'C1'",
  );
  t.strictSame(rows, [{ digest: digest(c1.secret) }]);
});

t.test(
  'STO-06 RFC 6749 §1.4: a token says nothing about person, client, scope or time',
  async (t) => {
    // Long enough not to be among random bytes by chance.
    const client = { id: 'talkative' };
    await server.dependencies.clients.create({
      clientId: client.id,
      clientType: 'public',
      grantTypes: ['password', 'refresh_token'],
      scope: ['read'],
    });
    const tokens = [];
    for (let logins = 0; logins < 20; logins++) tokens.push((await login(server, client)).body);
    for (const kind of ['access_token', 'refresh_token'] as const) {
      const decoded = tokens.map((token) => Buffer.from(token[kind].slice(4), 'base64url'));
      const [first] = decoded as [Buffer];
      for (let index = 0; index < first.length; index++) {
        const seen = new Set(decoded.map((bytes) => bytes[index]));
        t.ok(seen.size > 5, `byte ${index} of ${kind} is the same in no ten of twenty`);
      }
      t.notMatch(decoded.map((bytes) => bytes.toString('latin1')).join(), /alice|talkative|read/);
    }
  },
);

t.test(
  'STO-07 practice: a token has a prefix that scanners can match, and a checksum',
  async (t) => {
    const { body } = await login(server, p1);
    t.match(body.access_token, /^hat_[A-Za-z0-9_-]{70}$/);
    t.match(body.refresh_token, /^hrt_[A-Za-z0-9_-]{91}$/);
    const last = body.access_token.at(-3) === 'A' ? 'B' : 'A';
    const wrong = body.access_token.slice(0, -3) + last + body.access_token.slice(-2);
    const revoked = await revoke(server, p1, wrong);
    t.equal(revoked.status, 200);
    t.equal((await refresh(server, p1, body.refresh_token)).status, 200, 'nothing happened');
  },
);

t.test(
  'STO-08 ASVS 14.2.7: dead rows are deleted in bounded batches, and logins go on meanwhile',
  async (t) => {
    const { inspect } = server;
    const rows = 1200;
    const insertDead = async () => {
      await inspect.query(
        `insert into token_family (id, client_key, scope, audience, started_at, idle_expires_at, expires_at)
     select gen_random_uuid(), (select key from client where client_id = 'P1'), 'read', '{}',
       now() - interval '31 days', now() - interval '1 day', now() - interval '1 second'
     from generate_series(1, ${rows})`,
      );
      await inspect.query(
        `insert into token_family (
         id, client_key, scope, audience, started_at, idle_expires_at, expires_at, access_tokens
       )
       select gen_random_uuid(), (select key from client where client_id = 'P1'), 'read', '{}',
         now() - interval '1 day', now() + interval '1 day', now() + interval '2 days', array[
           row(sha256('a'), 'read', now(), now() + interval '1 minute')::issued_access_token,
           row(sha256('b'), 'read', now(), now() - interval '1 hour')::issued_access_token
         ]
       from generate_series(1, ${rows})`,
      );
    };
    await insertDead();
    const live = (await login(server, p1)).body;
    const { statements, database } = counting(server.dependencies.database);
    const [pruned, during] = await Promise.all([prune(database), login(server, p1)]);
    t.equal(during.status, 200);
    t.equal(pruned.families, rows);
    t.ok(statements() >= 3 + rows / 500, 'more than one batch');
    t.equal(pruned.accessTokens, rows, 'of families that live on, the expired ones');
    const left = await inspect.query(
      `select from token_family, unnest(access_tokens) a where a.digest in (sha256('a'), sha256('b'))`,
    );
    t.equal(left.rowCount, rows, 'and no other');
    t.equal((await refresh(server, p1, live.refresh_token)).status, 200, 'what lives stays');
    await insertDead();
    const stopped = await prune(database, { isStopping: () => true });
    t.match(stopped, { families: 0, accessTokens: 0 }, 'a shutdown does not wait');
    // Whether the new rows lie together depends on whether autovacuum has made room among the old.
    const expired = await inspect.query<{ half: number }>(
      `select percentile_disc(0.5) within group (
         order by split_part(trim('(' from f.ctid::text), ',', 1)::int
       )::float / (pg_relation_size('token_family') / current_setting('block_size')::int) as half
       from token_family f, unnest(f.access_tokens) a where a.expires_at <= now()`,
    );
    const half = expired.rows[0]?.half as number;
    const { accessTokens } = await prune(database, { walk: { from: half, to: 1 } });
    t.ok(accessTokens > 0 && accessTokens < rows, 'a part of the walk is no more than that');
    const rest = await prune(database, { walk: { from: 0, to: half } });
    t.equal(accessTokens + rest.accessTokens, rows);
  },
);

t.test('STO-09 ASVS 13.2.2: the running role needs no DDL', async (t) => {
  const { url, inspect } = await createTestDatabase(t, 'template0');
  const role = `heirloom_runtime_${randomBytes(4).toString('hex')}`;
  const password = randomBytes(12).toString('hex');
  await inspect.query(`create role ${role} login password '${password}'`);
  await inspect.query(
    `alter default privileges in schema public grant select, insert, update, delete on tables to ${role};
     alter default privileges in schema public grant usage on sequences to ${role};
     revoke create on schema public from public;
     grant usage on schema public to ${role}`,
  );
  t.teardown(() => inspect.query(`drop owned by ${role}; drop role ${role}`));
  const runtime = new URL(url);
  runtime.username = role;
  runtime.password = password;
  const env = { DATABASE_URL: runtime.href, MIGRATION_DATABASE_URL: url };
  const process = await serve(t, { env });
  t.equal((await fetch(`${process.url}/readyz`)).status, 200);
  const answer = await post(`${process.url}/token`, { grant_type: 'password', client_id: 'x' });
  t.equal(answer.status, 401, 'it can read its tables');
  const client = new pg.Client({ connectionString: runtime.href });
  await client.connect();
  await t.rejects(client.query('create table x ()'), { code: '42501' } as never);
  await client.end();
  t.equal(await process.stop(), 0);
});

/** Counts the statements that prune sends. */
function counting(database: typeof server.dependencies.database) {
  let count = 0;
  return {
    statements: () => count,
    database: {
      ...database,
      affect: (...parameters: Parameters<typeof database.affect>) => {
        count++;
        return database.affect(...parameters);
      },
    },
  };
}
