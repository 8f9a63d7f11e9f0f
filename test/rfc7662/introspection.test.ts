/**
 * Token introspection, RFC 7662.
 *
 *   request  §2.1  token (REQUIRED), token_type_hint (OPTIONAL), by an authenticated caller
 *   response §2.2  active (REQUIRED); scope, client_id, token_type, exp, iat, sub, aud, iss
 *   errors   §2.3  401 for the caller's credentials; a token that is not good is no error
 */

import t, { type Test } from 'tap';
import { basic, post, send } from '../support/client.ts';
import { expiredAccessTokens } from '../support/family-rows.ts';
import {
  API_AUDIENCE,
  type Caller,
  createCast,
  introspect,
  login,
  refresh,
  revoke,
} from '../support/fixtures.ts';
import { startProxy } from '../support/proxy.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t);
const cast = await createCast(server);
const { clients, resourceOwners } = server.dependencies;
const { c1, c2, p1, rs1, rs2 } = cast;

const inactive = '{"active":false}';
const any = await clients.create({
  clientId: 'any',
  clientType: 'confidential',
  introspectionRight: 'any',
});
const reader: Caller = { id: 'any', secret: any.clientSecret as string };

async function isInactive(t: Test, caller: Caller, token: string, why: string): Promise<void> {
  const answer = await introspect(server, caller, token);
  t.equal(answer.status, 200, why);
  t.equal(answer.text, inactive, why);
}

t.test(
  'INT-01 RFC 7662 §2.1: a caller that does not authenticate gets 401 and no verdict',
  async (t) => {
    const { body } = await login(server, c1);
    const answer = await post(`${server.url}/introspect`, { token: body.access_token });
    t.equal(answer.status, 401);
    t.equal(answer.headers.get('www-authenticate'), 'Basic realm="heirloom"');
    t.notOk('active' in answer.body);
  },
);

t.test('INT-02 RFC 7662 §2.3: wrong credentials are invalid_client', async (t) => {
  const answer = await introspect(server, { id: rs1.id, secret: 'wrong' }, 'x');
  t.equal(answer.status, 401);
  t.strictSame(answer.body, {
    error: 'invalid_client',
    error_description: 'Client authentication failed.',
  });
});

t.test('INT-03 RFC 7662 §2.2: a live access token is described', async (t) => {
  const { body } = await login(server, c1, { scope: 'read' });
  const answer = await introspect(server, rs1, body.access_token);
  t.equal(answer.status, 200);
  const { exp, iat, ...claims } = answer.body;
  t.strictSame(claims, {
    active: true,
    scope: 'read',
    client_id: 'C1',
    sub: cast.aliceSubject,
    aud: API_AUDIENCE,
    iss: server.url,
    token_type: 'Bearer',
  });
  t.ok(Number.isInteger(exp) && Number.isInteger(iat));
});

t.test(
  'INT-04 RFC 7662 §2.2: whatever is not good is {"active":false} and nothing else',
  async (t) => {
    const settings = { grantTypes: ['password', 'refresh_token'], scope: ['read'] };
    await clients.create({ clientId: 'gone', clientType: 'public', ...settings });
    await resourceOwners.create('frank', 'a phrase that only frank knows');
    const frank = { username: 'frank', password: 'a phrase that only frank knows' };

    const revoked = (await login(server, p1)).body.access_token;
    await revoke(server, p1, revoked);
    const family = (await login(server, p1)).body;
    await revoke(server, p1, family.refresh_token);
    const expired = (await login(server, p1)).body.access_token;
    const familyId = uuidOf(expired);
    await server.inspect.query(
      `update token_family set access_tokens = ${expiredAccessTokens} where id = $1`,
      [familyId],
    );
    const franks = (await login(server, p1, frank)).body.access_token;
    const orphan = (await login(server, { id: 'gone' })).body.access_token;
    await isActive(t, reader, franks);
    await isActive(t, reader, orphan);
    await resourceOwners.disable('frank');
    await clients.delete('gone');

    const bad = {
      unknown: revoked.replace(/.{20}$/, 'AAAAAAAAAAAAAAAAAAAA'),
      malformed: 'not-a-token',
      jwt: 'eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.',
      long: 'x'.repeat(1000),
      revoked,
      expired,
      'of a revoked family': family.access_token,
      'of a disabled person': franks,
      'of a deleted client': orphan,
    };
    for (const [why, token] of Object.entries(bad)) await isInactive(t, reader, token, why);
  },
);

t.test('INT-05 RFC 7662 §4: a resource server sees no token of another audience', async (t) => {
  const { body } = await login(server, c1);
  await isActive(t, rs1, body.access_token);
  await isInactive(t, rs2, body.access_token, 'another audience');
  const without = await login(server, p1);
  await isInactive(t, rs1, without.body.access_token, 'no audience at all');
  await isActive(t, reader, without.body.access_token);
});

t.test('INT-06 RFC 7662 §2.2: a refresh token is inactive for every resource server', async (t) => {
  const { body } = await login(server, c1);
  for (const caller of [rs1, rs2, reader])
    await isInactive(t, caller, body.refresh_token, caller.id);
});

t.test(
  'INT-07 RFC 7662 §2.2: its own client sees a refresh token, which is no Bearer',
  async (t) => {
    const { body } = await login(server, c1);
    const answer = await introspect(server, c1, body.refresh_token);
    const { exp, iat, ...claims } = answer.body;
    t.strictSame(claims, {
      active: true,
      scope: 'read write',
      client_id: 'C1',
      sub: cast.aliceSubject,
      aud: API_AUDIENCE,
      iss: server.url,
    });
    t.equal(exp - iat, 604_800, 'its own end, not the access token’s');
  },
);

t.test('INT-08 RFC 7662 §2.2: a client sees nothing of another client', async (t) => {
  const { body } = await login(server, c1);
  await isInactive(t, c2, body.access_token, 'own');
  await isActive(t, c1, body.access_token);
  const none = await clients.create({ clientId: 'none', clientType: 'confidential' });
  const caller = { id: 'none', secret: none.clientSecret as string };
  await isInactive(t, caller, body.access_token, 'no right at all');
});

t.test('INT-09 RFC 7662 §4: a public client cannot authenticate and so cannot ask', async (t) => {
  const { body } = await login(server, p1);
  const answer = await post(`${server.url}/introspect`, {
    client_id: p1.id,
    token: body.access_token,
  });
  t.equal(answer.status, 401);
  t.equal(answer.body.error, 'invalid_client');
});

t.test('INT-10 RFC 7662 §2.2: exp and iat are whole seconds and a lifetime apart', async (t) => {
  const { body } = await login(server, c1);
  const { exp, iat } = (await introspect(server, c1, body.access_token)).body;
  t.equal(exp - iat, body.expires_in);
  t.equal(body.expires_in, 900);
  t.ok(Math.abs(iat - Date.now() / 1000) < 2);
});

t.test('INT-11 RFC 7662 §4: from the instant of exp on the token is inactive', async (t) => {
  const short = await startServer(t, {
    database: { url: server.databaseUrl, inspect: server.inspect },
    lifetimes: { ...server.dependencies.config.lifetimes, accessTokenLifetimeSeconds: 2 },
  });
  const { body } = await login(short, c1);
  const ask = () => introspect(short, c1, body.access_token);
  const { exp } = (await ask()).body;
  for (;;) {
    const before = Date.now() / 1000;
    const { active } = (await ask()).body;
    const after = Date.now() / 1000;
    if (after < exp) t.ok(active, 'before exp');
    if (before >= exp) {
      t.notOk(active, 'from exp on');
      break;
    }
  }
});

t.test('INT-12 RFC 7662 §2.1: no hint changes the answer', async (t) => {
  const { body } = await login(server, c1);
  for (const token of [body.access_token, body.refresh_token]) {
    const answer = await introspect(server, c1, token);
    for (const token_type_hint of ['access_token', 'refresh_token', 'foo', '']) {
      t.equal((await introspect(server, c1, token, { token_type_hint })).text, answer.text);
    }
  }
});

t.test('INT-13 RFC 7662 §2.1: a missing or repeated token is invalid_request', async (t) => {
  const headers = basic(rs1.id, rs1.secret);
  for (const pairs of [
    [],
    [['token', '']],
    [
      ['token', 'a'],
      ['token', 'a'],
    ],
  ] as [string, string][][]) {
    const answer = await post(`${server.url}/introspect`, pairs, headers);
    t.equal(answer.status, 400);
    t.equal(answer.body.error, 'invalid_request');
  }
});

t.test('INT-14 ASVS 14.3.2: nobody stores an answer', async (t) => {
  const { body } = await login(server, c1);
  const answers = [
    await introspect(server, c1, body.access_token),
    await introspect(server, c1, 'x'),
    await introspect(server, { id: c1.id, secret: 'wrong' }, 'x'),
    await post(`${server.url}/introspect`, {}, basic(c1.id, c1.secret)),
  ];
  for (const answer of answers) t.equal(answer.headers.get('cache-control'), 'no-store');
});

t.test('INT-15 RFC 9700 §4.14.2: a spent refresh token is inactive at once', async (t) => {
  const { body } = await login(server, c1);
  await isActive(t, c1, body.refresh_token);
  await refresh(server, c1, body.refresh_token);
  await isInactive(t, c1, body.refresh_token, 'inside the retry window');
});

t.test('INT-16 RFC 9700 §4.14.2: introspection is not use', async (t) => {
  const { body } = await login(server, c1);
  const next = (await refresh(server, c1, body.refresh_token)).body;
  await isActive(t, c1, next.access_token);
  await isActive(t, c1, next.refresh_token);
  const retried = await refresh(server, c1, body.refresh_token);
  t.equal(retried.status, 200);
  t.equal(retried.body.refresh_token, next.refresh_token);
});

t.test(
  'INT-17 RFC 7662 §2.2: sub outlives a change of name and is never given again',
  async (t) => {
    const password = 'a phrase that only grace knows';
    const grace = await resourceOwners.create('grace', password);
    const credentials = { username: 'grace', password };
    const token = (await login(server, c1, credentials)).body.access_token;
    t.equal((await introspect(server, c1, token)).body.sub, grace.subject);
    await server.inspect.query(
      "update resource_owner set username = 'hopper' where username = 'grace'",
    );
    t.equal((await introspect(server, c1, token)).body.sub, grace.subject);
    await resourceOwners.delete('hopper');
    await isInactive(t, c1, token, 'deleted');
    const other = await resourceOwners.create('grace', password);
    t.not(other.subject, grace.subject);
  },
);

t.test('INT-19 RFC 7662 §5: no null, no name and no key of a row', async (t) => {
  const { body } = await login(server, c1);
  const answer = await introspect(server, c1, body.access_token);
  t.strictSame(Object.keys(answer.body).sort(), [
    'active',
    'aud',
    'client_id',
    'exp',
    'iat',
    'iss',
    'scope',
    'sub',
    'token_type',
  ]);
  t.notMatch(answer.text, /null|alice/);
  const several = await clients.create({
    clientId: 'several',
    clientType: 'confidential',
    grantTypes: ['password'],
    scope: ['read'],
    audience: ['https://one.example', 'https://two.example'],
    introspectionRight: 'own',
  });
  const caller = { id: 'several', secret: several.clientSecret as string };
  const token = (await login(server, caller)).body.access_token;
  t.strictSame((await introspect(server, caller, token)).body.aud, [
    'https://one.example',
    'https://two.example',
  ]);
});

t.test('INT-20 ASVS 16.5.3: without a database the answer is 503 and no verdict', async (t) => {
  const proxy = await startProxy(t, server.databaseUrl);
  const cut = await startServer(t, {
    database: { url: proxy.url, inspect: server.inspect },
  });
  const { body } = await login(cut, c1);
  await isActive(t, c1, body.access_token);
  proxy.cut();
  for (const token of [body.access_token, 'x']) {
    const answer = await introspect(cut, c1, token);
    t.equal(answer.status, 503);
    t.strictSame(answer.body, { error: 'temporarily_unavailable' });
    t.match(answer.headers.get('retry-after'), /^\d+$/);
  }
  proxy.restore();
  t.equal(
    (await introspect(cut, c1, body.access_token)).body.active,
    true,
    'back without a restart',
  );
});

t.test(
  'INT-21 RFC 9701 §4: a signed answer that nobody supports is plain JSON, labelled so',
  async (t) => {
    const { body } = await login(server, c1);
    const answer = await post(
      `${server.url}/introspect`,
      { token: body.access_token },
      {
        ...basic(c1.id, c1.secret),
        accept: 'application/token-introspection+jwt',
      },
    );
    t.equal(answer.status, 200);
    t.match(answer.headers.get('content-type'), 'application/json');
    t.equal(answer.body.active, true);
  },
);

t.test('INT-22 RFC 7662 §2.3: a bearer token does not authorise introspection', async (t) => {
  const { body } = await login(server, c1);
  const authorization = `Bearer ${body.access_token}`;
  const answer = await send(`${server.url}/introspect`, {
    method: 'POST',
    headers: { authorization, 'content-type': 'application/x-www-form-urlencoded' },
    body: 'token=x',
  });
  t.equal(answer.status, 401);
  t.match(answer.headers.get('www-authenticate'), /^Basic /, 'the only scheme there is');
});

t.test('INT-23 RFC 7662 §4: scanning creates no rows', async (t) => {
  const count = async () =>
    (
      await server.inspect.query(
        'select (select count(*) + sum(cardinality(access_tokens)) from token_family) + (select count(*) from security_event) as rows',
      )
    ).rows[0].rows;
  const { body } = await login(server, c1);
  const before = await count();
  const tail = 'A'.repeat(20);
  const scan = Array.from({ length: 300 }, (_, index) =>
    introspect(server, reader, index % 2 ? `hat_${index}` : body.access_token.slice(0, -20) + tail),
  );
  for (const answer of await Promise.all(scan)) t.equal(answer.text, inactive);
  t.equal(await count(), before);
});

async function isActive(t: Test, caller: Caller, token: string): Promise<void> {
  t.match((await introspect(server, caller, token)).body, { active: true }, caller.id);
}

/** The family id, which is public by design. */
const uuidOf = (token: string): string =>
  Buffer.from(token.slice(4), 'base64url').subarray(0, 16).toString('hex');
