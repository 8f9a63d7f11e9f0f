/**
 * Resource owner password credentials grant, RFC 6749 §4.3.
 *
 *   request  grant_type=password, username, password (REQUIRED), scope (OPTIONAL)
 *   response access_token, token_type, expires_in, refresh_token, scope (RFC 6749 §5.1)
 */
import pg from 'pg';
import t from 'tap';
import { parseOpaqueToken } from '../../src/oauth/opaque-token.ts';
import { type Answer, send } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import {
  ALICE_PASSWORD,
  createCast,
  introspect,
  invalidGrantBody,
  login,
  refresh,
  revoke,
} from '../support/fixtures.ts';
import { cheapArgon2, startServer } from '../support/server.ts';

const database = await createTestDatabase(t);
const server = await startServer(t, { database, isRateLimitOn: false });
const cast = await createCast(server);
const { clients, resourceOwners } = server.dependencies;
const { c1, p1 } = cast;

const refused = (answer: Answer, why = '') => {
  t.equal(answer.status, 400, why);
  t.strictSame(answer.body, invalidGrantBody, why);
  t.equal(answer.headers.get('www-authenticate'), null, why);
};

t.test(
  'PWD-01 RFC 9700 §2.4: the grant can be switched off, and a client has only what it was given',
  async (t) => {
    const off = await startServer(t, { database, isPasswordGrantOn: false });
    t.equal((await login(off, c1)).body.error, 'unsupported_grant_type');
    await clients.create({ clientId: 'new', clientType: 'public' });
    t.equal((await login(server, { id: 'new' })).body.error, 'unauthorized_client');
  },
);

t.test(
  'PWD-02 RFC 6749 §4.3.2: a missing or empty username or password is invalid_request',
  async (t) => {
    for (const parameters of [{ username: '' }, { password: '' }]) {
      const answer = await login(server, c1, parameters);
      t.equal(answer.status, 400);
      t.equal(answer.body.error, 'invalid_request');
    }
  },
);

t.test('PWD-03 RFC 6749 §5.2: a wrong password is 400 invalid_grant', async () => {
  refused(await login(server, c1, { password: 'wrong' }));
});

t.test('PWD-04 ASVS 6.3.8: an unknown person gets the same answer', async () => {
  refused(await login(server, c1, { username: 'nobody' }));
});

t.test(
  'PWD-05 ASVS 6.3.8: so do disabled and password-less people, whatever the password',
  async () => {
    await resourceOwners.create('passwordless', undefined);
    for (const username of ['dora', 'passwordless']) {
      refused(await login(server, c1, { username }), username);
      refused(await login(server, c1, { username, password: 'wrong' }), username);
    }
  },
);

t.test('PWD-06 NIST SP 800-63B-4 §3.1.1.2: every character of a password counts', async (t) => {
  for (const length of [73, 256]) {
    const password = varied(length);
    await resourceOwners.create(`long-${length}`, password);
    const username = `long-${length}`;
    refused(await login(server, c1, { username, password: `${password.slice(0, -1)}!` }));
    t.equal((await login(server, c1, { username, password })).status, 200);
  }
});

t.test(
  'PWD-07 NIST SP 800-63B-4 §3.1.1.2: 64 and 200 characters can be set and used',
  async (t) => {
    for (const length of [64, 200]) {
      const username = `characters-${length}`;
      await resourceOwners.create(username, varied(length));
      t.equal((await login(server, c1, { username, password: varied(length) })).status, 200);
    }
  },
);

t.test('PWD-08 ASVS 15.2.2: a password above the maximum is a wrong one', async () => {
  refused(await login(server, c1, { password: 'x'.repeat(1024) }));
});

t.test('PWD-09 ASVS 6.2.8: spaces at either end count', async (t) => {
  const password = ' a phrase with spaces around ';
  await resourceOwners.create('spaces', password);
  t.equal((await login(server, c1, { username: 'spaces', password })).status, 200);
  refused(await login(server, c1, { username: 'spaces', password: password.trim() }));
});

t.test('PWD-10 NIST SP 800-63B-4 §3.1.1.2: both normal forms of a password open', async (t) => {
  const composed = 'caf\u00e9 au lait pour moi';
  const decomposed = 'cafe\u0301 au lait pour moi';
  await resourceOwners.create('composed', composed);
  await resourceOwners.create('decomposed', decomposed);
  for (const username of ['composed', 'decomposed']) {
    for (const password of [composed, decomposed]) {
      t.equal((await login(server, c1, { username, password })).status, 200);
    }
  }
});

t.test('PWD-11 RFC 8265 §3.3: a name is found in either normal form and in any case', async (t) => {
  await resourceOwners.create('Ren\u00e9e', ALICE_PASSWORD);
  for (const username of ['ren\u00e9e', 'rene\u0301e', 'REN\u00c9E', 'RENE\u0301E']) {
    t.equal((await login(server, c1, { username })).status, 200, username);
  }
  t.equal((await login(server, c1, { username: 'ALICE' })).status, 200);
});

t.test('PWD-12 RFC 8264 §12.5: a look-alike of a name is another name', async () => {
  for (const username of [
    '\u0430lice',
    'ali\u200bce',
    'alice ',
    ' alice',
    'a\u0301lice',
    'ａlice',
  ]) {
    refused(await login(server, c1, { username }), JSON.stringify(username));
  }
});

t.test(
  'PWD-13 NIST SP 800-63B-4 §3.1.1.2: length counts characters, so that 15 emoji are enough',
  async (t) => {
    const password = '🙂🙃😀😁😂😃😄😅😆😇😈😉😊😋😌';
    await resourceOwners.create('emoji', password);
    t.equal((await login(server, c1, { username: 'emoji', password })).status, 200);
    const shorter = [...password].slice(1).join('');
    await t.rejects(resourceOwners.setPassword('emoji', shorter), /at least 15/);
  },
);

t.test(
  'PWD-14 NIST SP 800-63B-4 §3.1.1.2: obvious passwords are refused with the reason, others need no composition',
  async (t) => {
    const old = 'the phrase that was before';
    await resourceOwners.create('bartholomew', old);
    const refusals: [string, RegExp][] = [
      ['fourteen chars', /at least 15/],
      ['aaaaaaaaaaaaaaaaaaaa', /repeats/],
      ['abcdefghijklmnopq', /sequence/],
      ['bartholomew-bartholomew', /user name/],
      ['heirloom heirloom', /product/],
      ['Correct Horse Battery Staple', /well-known/],
    ];
    for (const [password, reason] of refusals) {
      await t.rejects(resourceOwners.setPassword('bartholomew', password), reason);
    }
    const username = 'bartholomew';
    t.equal((await login(server, c1, { username, password: old })).status, 200, 'nothing changed');
    const password = 'only lower case words';
    await resourceOwners.setPassword('bartholomew', password);
    t.equal((await login(server, c1, { username, password })).status, 200);
  },
);

t.test('PWD-15 RFC 6749 §5.2: a bad scope says nothing about the password', async (t) => {
  for (const password of [ALICE_PASSWORD, 'wrong']) {
    const answer = await login(server, c1, { scope: 'admin', password });
    t.equal(answer.status, 400);
    t.equal(answer.body.error, 'invalid_scope');
  }
});

t.test(
  'PWD-16 RFC 9700 §4.14.2: a client that may not refresh gets no refresh token',
  async (t) => {
    await clients.create({
      clientId: 'once',
      clientType: 'public',
      grantTypes: ['password'],
      scope: ['read'],
    });
    const answer = await login(server, { id: 'once' });
    t.strictSame(Object.keys(answer.body).sort(), [
      'access_token',
      'expires_in',
      'scope',
      'token_type',
    ]);
    const { rows } = await server.inspect.query(
      "select f.lineage_digest, f.current_digest from token_family f join client c on c.key = f.client_key where c.client_id = 'once'",
    );
    t.strictSame(rows, [{ lineage_digest: null, current_digest: null }]);
  },
);

t.test('PWD-17 ASVS 7.2.4: two logins are two families', async (t) => {
  const one = (await login(server, c1)).body;
  const other = (await login(server, c1)).body;
  t.not(one.access_token, other.access_token);
  t.not(one.access_token.slice(0, 24), other.access_token.slice(0, 24));
  await revoke(server, c1, one.refresh_token);
  t.equal((await introspect(server, c1, other.access_token)).body.active, true);
  t.equal((await refresh(server, c1, other.refresh_token)).status, 200);
});

t.test(
  'PWD-18 OWASP Password Storage: a login raises a weaker hash to the current parameters',
  async (t) => {
    const stronger = await startServer(t, {
      database,
      argon2: { ...cheapArgon2, memoryKibibytes: 2048 },
    });
    const stored = async () =>
      (
        await server.inspect.query(
          "select password_hash, credential_version from resource_owner where username = 'alice'",
        )
      ).rows[0];
    const before = await stored();
    const session = (await login(server, c1)).body;
    t.equal((await login(stronger, c1)).status, 200);
    const after = await stored();
    t.match(before.password_hash, 'm=1024');
    t.match(after.password_hash, 'm=2048');
    t.equal(after.credential_version, before.credential_version);
    t.equal((await refresh(server, c1, session.refresh_token)).status, 200, 'sessions go on');
    t.equal(
      (await login(server, c1)).status,
      200,
      'a server with weaker parameters verifies it too',
    );
    t.match((await stored()).password_hash, 'm=2048', 'and leaves it');
  },
);

t.test(
  'PWD-19 ASVS 16.5.3: a damaged hash is a wrong password, and an error in the log',
  async (t) => {
    await resourceOwners.create('damaged', ALICE_PASSWORD);
    await server.inspect.query(
      "update resource_owner set password_hash = '$argon2id$broken' where username = 'damaged'",
    );
    const before = server.logs.length;
    refused(await login(server, c1, { username: 'damaged' }));
    const lines = server.logs.slice(before).map((line) => JSON.parse(line));
    t.ok(lines.some(({ level, detail }) => level >= 50 && /unreadable/.test(detail)));
  },
);

t.test(
  'DOS-11 ASVS 7.1.2: a person has at most 100 live families, and the oldest ends',
  async (t) => {
    await resourceOwners.create('busy', ALICE_PASSWORD);
    const first = (await login(server, p1, { username: 'busy' })).body;
    const second = (await login(server, p1, { username: 'busy' })).body;
    for (let logins = 2; logins < 101; logins++) await login(server, p1, { username: 'busy' });
    refused(await refresh(server, p1, first.refresh_token), 'the oldest');
    t.equal((await refresh(server, p1, second.refresh_token)).status, 200, 'the next one lives');
  },
);

t.test('families that are over do not count towards the 100', async (t) => {
  await resourceOwners.create('frugal', ALICE_PASSWORD);
  const first = (await login(server, p1, { username: 'frugal' })).body;
  await server.inspect.query(
    `insert into token_family (
       id, client_key, resource_owner_id, scope, audience, started_at, idle_expires_at, expires_at,
       revoked_at, revocation_reason
     )
     select gen_random_uuid(), client_key, resource_owner_id, scope, audience, clock_timestamp(),
       case when is_idle then clock_timestamp() else idle_expires_at end, expires_at,
       case when not is_idle then clock_timestamp() end, case when not is_idle then 'revoked' end
     from token_family, unnest(array[true, false]) is_idle, generate_series(1, 100) where id = $1`,
    [parseOpaqueToken(first.refresh_token)?.familyId],
  );
  t.equal((await login(server, p1, { username: 'frugal' })).status, 200);
  t.equal((await refresh(server, p1, first.refresh_token)).status, 200);
});

t.test('the oldest family that somebody else is ending keeps its reason', async (t) => {
  const ending = new pg.Client({ connectionString: server.databaseUrl });
  await ending.connect();
  await ending.query('begin');
  const { rows } = await ending.query<{ id: string }>(
    `update token_family set revoked_at = clock_timestamp(), revocation_reason = 'replay'
     where id = (
       select f.id from token_family f join resource_owner o on o.id = f.resource_owner_id
       where o.username = 'busy' and f.revoked_at is null order by f.started_at limit 1
     ) returning id`,
  );
  // One login more than there may be, which waits for the row that is being written.
  const answer = login(server, p1, { username: 'busy' });
  await new Promise((resolve) => setTimeout(resolve, 400));
  await ending.query('commit');
  t.equal((await answer).status, 200);
  const { rows: ended } = await ending.query(
    'select revocation_reason from token_family where id = $1',
    [rows[0]?.id],
  );
  await ending.end();
  t.strictSame(ended, [{ revocation_reason: 'replay' }]);
});

t.test('a login whose person changes before it is complete is refused', async (t) => {
  const changes = {
    'credential_version = credential_version + 1': '',
    // By hand, say: the command moves the version, too.
    'disabled_at = clock_timestamp()': 'disabled_at = null',
  };
  for (const [change, undo] of Object.entries(changes)) {
    const changing = new pg.Client({ connectionString: server.databaseUrl });
    await changing.connect();
    await changing.query('begin');
    await changing.query(`update resource_owner set ${change} where username = 'alice'`);
    // Verified against what it read, the login now waits for the row that is being changed.
    const answer = login(server, c1);
    await new Promise((resolve) => setTimeout(resolve, 400));
    await changing.query('commit');
    refused(await answer, change);
    if (undo) await changing.query(`update resource_owner set ${undo} where username = 'alice'`);
    await changing.end();
    t.equal((await login(server, c1)).status, 200);
  }
});

t.test(
  'a family that cannot be refreshed is over with its only token, and ends no other',
  async (t) => {
    const { rows } = await server.inspect.query<{ isOver: boolean }>(
      `select f.expires_at = a.expires_at and f.idle_expires_at = a.expires_at as "isOver"
     from token_family f cross join unnest(f.access_tokens) a
     join client c on c.key = f.client_key where c.client_id = 'once'`,
    );
    t.ok(rows.length > 0 && rows.every(({ isOver }) => isOver));
  },
);

t.test('DOS-10 ASVS 1.3: what is slow to normalise is not normalised', async (t) => {
  // Not percent-encoded, so that it fits into a body.
  const slow = '\u0345'.repeat(3900) + '\u0334'.repeat(3900);
  const ask = (parameters: string) =>
    send(`${server.url}/token`, {
      method: 'POST',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      body: `grant_type=password&client_id=P1&${parameters}`,
    });
  const cpu = async (parameters: string) => {
    const start = process.cpuUsage();
    for (let round = 0; round < 10; round++) refused(await ask(parameters));
    const { user, system } = process.cpuUsage(start);
    return user + system;
  };
  const plain = `username=${'x'.repeat(15_000)}&password=x`;
  await cpu(plain);
  const usual = await cpu(plain);
  const longName = await cpu(`username=${slow}&password=x`);
  const longPassword = await cpu(`username=alice&password=${slow}`);
  t.ok(longName < usual * 4, `${longName} µs against ${usual} µs`);
  t.ok(longPassword < usual * 4, `${longPassword} µs against ${usual} µs`);
});

/** A password without repetition, in which the last character matters. */
const varied = (length: number): string =>
  Array.from({ length }, (_, index) =>
    String.fromCharCode(33 + ((index * index + 7 * index) % 90)),
  ).join('');
