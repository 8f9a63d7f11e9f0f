/**
 * Refreshing an access token, RFC 6749 §6:
 *
 *     POST /token
 *     grant_type     REQUIRED  "refresh_token"
 *     refresh_token  REQUIRED
 *     scope          OPTIONAL  "MUST NOT include any scope not originally granted"
 *
 * The answer is that of §5.1, or an error of §5.2: `invalid_grant` where the refresh token is "invalid,
 * expired, revoked … or was issued to another client", `invalid_scope` where the requested scope "exceeds
 * the scope granted by the resource owner". Rotation has tests of its own in `rfc9700/`.
 */
import t, { type Test } from 'tap';
import {
  formatRefreshToken,
  generateFamilyId,
  generateLineage,
  generateSecret,
  type PresentedRefreshToken,
  parseOpaqueToken,
} from '../../src/oauth/opaque-token.ts';
import { type Answer, post } from '../support/client.ts';
import { isRefused } from '../support/errors.ts';
import {
  ALICE_PASSWORD,
  createCast,
  introspect,
  login,
  refresh,
  revoke,
} from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t, { isRateLimitOn: false });
const { clients, resourceOwners } = server.dependencies;
const { c1, c2, p1, rs1 } = await createCast(server);

const isInvalidGrant = (t: Test, answer: Answer, why: string) =>
  isRefused(t, answer, 'invalid_grant', why);

/** All that two answers could differ in, but for what every answer has of its own. */
function bytesOf({ status, headers, text }: Answer) {
  const own = /^(date|x-request-id|x?-?ratelimit.*)$/;
  return { status, headers: [...headers].filter(([name]) => !own.test(name)), text };
}

const familyIdOf = ({ body }: Answer): string | undefined =>
  parseOpaqueToken(body.refresh_token)?.familyId;

const unknownToken = () =>
  formatRefreshToken(generateFamilyId(), generateLineage(), generateSecret());

const isActive = async (accessToken: string): Promise<boolean> =>
  (await introspect(server, rs1, accessToken)).body.active;

t.test('RFT-11 RFC 6749 §5.2: another client’s token is as good as unknown', async (t) => {
  const first = await login(server, c1);
  const r0 = first.body.refresh_token;
  for (const stranger of [c2, p1]) {
    const unknown = await refresh(server, stranger, unknownToken());
    const foreign = await refresh(server, stranger, r0);
    isInvalidGrant(t, foreign, stranger.id);
    t.strictSame(bytesOf(foreign), bytesOf(unknown), `${stranger.id} learns nothing`);
  }
  const second = await refresh(server, c1, r0);
  t.equal(second.status, 200, 'C1 can use it');
  for (const stranger of [c2, p1]) {
    isInvalidGrant(t, await refresh(server, stranger, r0), `${stranger.id}, spent`);
  }
  t.equal((await refresh(server, c1, second.body.refresh_token)).status, 200, 'C1 goes on');
});

t.test('RFT-12 RFC 6749 §6: nothing is spent without client authentication', async (t) => {
  const r0 = (await login(server, c1)).body.refresh_token;
  const grant = { grant_type: 'refresh_token', refresh_token: r0 };
  const url = `${server.url}/token`;
  const inBody = { ...grant, client_id: 'C1', client_secret: 'wrong' };
  const table: readonly (readonly [string, Answer])[] = [
    ['no client at all', await post(url, grant)],
    ['no secret', await refresh(server, { id: 'C1' }, r0)],
    ['an empty secret', await refresh(server, { id: 'C1', secret: '' }, r0)],
    ['a wrong secret', await refresh(server, { id: 'C1', secret: 'wrong' }, r0)],
    ['a wrong secret in the body', await post(url, inBody)],
    ['the secret of another client', await refresh(server, { id: 'C1', secret: c2.secret }, r0)],
    ['an unknown client', await refresh(server, { id: 'C9', secret: 'wrong' }, r0)],
  ];
  for (const [name, answer] of table) {
    isRefused(t, answer, 'invalid_client', name);
  }
  t.equal((await refresh(server, c1, r0)).status, 200, 'and then the right client refreshes');
});

t.test('RFT-13 RFC 6749 §5.2: bad tokens of every kind get one and the same answer', async (t) => {
  const endNow = (answer: Answer, column: string) =>
    server.inspect.query(
      `update token_family set ${column} = date_trunc('second', clock_timestamp()) where id = $1`,
      [familyIdOf(answer)],
    );
  const expired = await login(server, c1);
  await endNow(expired, 'expires_at');
  const idle = await login(server, c1);
  await endNow(idle, 'idle_expires_at');
  const revoked = await login(server, c1);
  await revoke(server, c1, revoked.body.refresh_token);
  const replayed = await login(server, c1);
  const second = await refresh(server, c1, replayed.body.refresh_token);
  await refresh(server, c1, second.body.refresh_token);
  const live = await login(server, c1);
  const { familyId, secret } = parseOpaqueToken(live.body.refresh_token) as PresentedRefreshToken;
  const tokens: Readonly<Record<string, string>> = {
    unknown: unknownToken(),
    malformed: 'hrt_garbage',
    expired: expired.body.refresh_token,
    revoked: revoked.body.refresh_token,
    foreign: (await login(server, c2)).body.refresh_token,
    idle: idle.body.refresh_token,
    replayed: replayed.body.refresh_token,
    truncated: live.body.refresh_token.slice(0, -1),
    'of a wrong lineage': formatRefreshToken(familyId, generateLineage(), secret),
    'not of this server': 'eyJhbGciOiJub25lIn0.e30.',
    'longer than any': `hrt_${'A'.repeat(600)}`,
  };
  const answers = new Map<string, Answer>();
  for (const [name, token] of Object.entries(tokens)) {
    answers.set(name, await refresh(server, c1, token));
  }
  const unknown = answers.get('unknown') as Answer;
  isInvalidGrant(t, unknown, 'unknown');
  for (const [name, answer] of answers) t.strictSame(bytesOf(answer), bytesOf(unknown), name);
  t.equal((await refresh(server, c1, live.body.refresh_token)).status, 200, 'guesses end nothing');
});

t.test('RFT-17 RFC 6749 §6: a narrower scope narrows the access token and says so', async (t) => {
  const first = await login(server, c1);
  t.equal(first.body.scope, 'read write');
  const narrowed = await refresh(server, c1, first.body.refresh_token, { scope: 'read' });
  t.match(narrowed, { status: 200, body: { scope: 'read' } });
  const { body } = await introspect(server, rs1, narrowed.body.access_token);
  t.match(body, { active: true, scope: 'read' });
});

t.test('RFT-18 RFC 6749 §6: the new refresh token keeps the scope of the first', async (t) => {
  const first = await login(server, c1);
  const narrowed = await refresh(server, c1, first.body.refresh_token, { scope: 'write' });
  t.equal(narrowed.body.scope, 'write');
  const whole = await refresh(server, c1, narrowed.body.refresh_token);
  t.match(whole, { status: 200, body: { scope: 'read write' } });
  const other = await refresh(server, c1, whole.body.refresh_token, { scope: 'read' });
  t.match(other, { status: 200, body: { scope: 'read' } }, 'or another part of it');
});

t.test('RFT-19 RFC 6749 §6: more scope is invalid_scope and spends nothing', async (t) => {
  const table = [
    ['read write', ['admin', 'read admin', 'READ', 'read write admin']],
    ['read', ['write', 'read write', 'admin']],
  ] as const;
  for (const [granted, excessive] of table) {
    const first = await login(server, c1, { scope: granted });
    const r0 = first.body.refresh_token;
    for (const scope of excessive) {
      const answer = await refresh(server, c1, r0, { scope });
      isRefused(t, answer, 'invalid_scope', `${granted}, asked for ${scope}`);
    }
    const second = await refresh(server, c1, r0);
    t.match(second, { status: 200, body: { scope: granted } }, 'R0 is good');
    for (const scope of excessive) {
      const answer = await refresh(server, c1, r0, { scope });
      isRefused(t, answer, 'invalid_scope', `${granted}, retried with ${scope}`);
    }
    const retried = await refresh(server, c1, r0);
    t.equal(retried.body.refresh_token, second.body.refresh_token, 'and so is a retry');
    t.equal((await refresh(server, c1, second.body.refresh_token)).status, 200, 'and R1');
  }
});

t.test('RFT-20 RFC 6749 §5.2: a client that lost the grant is unauthorized_client', async (t) => {
  await clients.create({
    clientId: 'demoted',
    clientType: 'public',
    grantTypes: ['password', 'refresh_token'],
    scope: ['read'],
  });
  const demoted = { id: 'demoted' };
  const r0 = (await login(server, demoted)).body.refresh_token;
  await clients.update('demoted', { grantTypes: ['password'] });
  for (const token of [r0, unknownToken(), 'garbage']) {
    const answer = await refresh(server, demoted, token);
    t.equal(answer.status, 400, 'whatever the token');
    t.strictSame(answer.body, {
      error: 'unauthorized_client',
      error_description: 'This client may not use this grant type.',
    });
  }
  await clients.update('demoted', { grantTypes: ['password', 'refresh_token'] });
  t.equal((await refresh(server, demoted, r0)).status, 200, 'nothing was spent');
});

t.test('RFT-21 RFC 6749 §5.2: nobody refreshes for a person who is gone', async (t) => {
  for (const end of ['disable', 'delete'] as const) {
    const username = `to-${end}`;
    await resourceOwners.create(username, ALICE_PASSWORD);
    const first = await login(server, c1, { username });
    const second = await refresh(server, c1, first.body.refresh_token);
    await resourceOwners[end](username);
    isInvalidGrant(t, await refresh(server, c1, second.body.refresh_token), `${end}: R1`);
    isInvalidGrant(t, await refresh(server, c1, first.body.refresh_token), `${end}: R0`);
    t.notOk(await isActive(second.body.access_token), `${end}: A1`);
  }
  await resourceOwners.create('back-again', ALICE_PASSWORD);
  const { body } = await login(server, c1, { username: 'back-again' });
  await resourceOwners.disable('back-again');
  await resourceOwners.enable('back-again');
  isInvalidGrant(t, await refresh(server, c1, body.refresh_token), 'enabled again');
});

t.test('RFT-23 RFC 6749 §1.5: an access token is no refresh token', async (t) => {
  const { access_token, refresh_token } = (await login(server, c1)).body;
  isInvalidGrant(t, await refresh(server, c1, access_token), 'A0');
  t.ok(await isActive(access_token), 'A0 stays as it was');
  t.equal((await refresh(server, c1, refresh_token)).status, 200, 'and so does R0');
});

t.test('RFT-29 RFC 6749 §5.1: every answer to a rotation is complete', async (t) => {
  for (const caller of [c1, p1]) {
    const first = await login(server, caller);
    const rotated = await refresh(server, caller, first.body.refresh_token);
    const retried = await refresh(server, caller, first.body.refresh_token);
    for (const { status, headers, body } of [rotated, retried]) {
      t.equal(status, 200);
      t.strictSame(Object.keys(body).toSorted(), [
        'access_token',
        'expires_in',
        'refresh_token',
        'scope',
        'token_type',
      ]);
      t.match(body, {
        access_token: /^hat_[A-Za-z0-9_-]{70}$/,
        refresh_token: /^hrt_[A-Za-z0-9_-]{91}$/,
        scope: 'read write',
        token_type: 'Bearer',
      });
      t.ok(Number.isInteger(body.expires_in) && body.expires_in > 0);
      t.match(headers.get('content-type'), /^application\/json/);
      t.equal(headers.get('cache-control'), 'no-store');
      t.equal(headers.get('pragma'), 'no-cache');
    }
  }
});

t.test('RFT-32 RFC 6749 §3.2: parameters of another grant are ignored', async (t) => {
  const limited = await startServer(t, { isRateLimitOn: true });
  const cast = await createCast(limited);
  let refreshToken = (await login(limited, cast.c1)).body.refresh_token;
  // More than the failed logins that a person, a client or an address has in a minute.
  for (let attempt = 0; attempt < 25; attempt++) {
    const wrong = { username: 'alice', password: 'not the phrase that alice knows' };
    const answer = await refresh(limited, cast.c1, refreshToken, wrong);
    t.equal(answer.status, 200);
    refreshToken = answer.body.refresh_token;
  }
  t.equal((await login(limited, cast.c1)).status, 200, 'and no failed login was counted');
});
