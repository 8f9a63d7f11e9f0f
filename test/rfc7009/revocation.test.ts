/**
 * Token revocation, RFC 7009:
 *
 *     POST /revoke
 *     token            REQUIRED  the token that the client wants to get revoked
 *     token_type_hint  OPTIONAL  "access_token" or "refresh_token"
 *
 * §2.2: the server answers 200 "if the token has been revoked successfully or if the client submitted an
 * invalid token"; the content of the body is ignored. Errors are those of RFC 6749 §5.2, and 503 (§2.2.1).
 */

import t, { type Test } from 'tap';
import {
  formatAccessToken,
  formatRefreshToken,
  generateFamilyId,
  generateLineage,
  generateSecret,
  parseOpaqueToken,
} from '../../src/oauth/opaque-token.ts';
import type { Answer } from '../support/client.ts';
import { isRefused } from '../support/errors.ts';
import { expiredAccessTokens } from '../support/family-rows.ts';
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
const { resourceOwners } = server.dependencies;
const { c1, p1, rs1 } = await createCast(server);

interface Pair {
  readonly access: string;
  readonly refresh: string;
}

const pairOf = ({ body }: Answer): Pair => ({
  access: body.access_token,
  refresh: body.refresh_token,
});

const logIn = async (caller: Parameters<typeof login>[1] = c1): Promise<Pair> =>
  pairOf(await login(server, caller));

const isActive = async (accessToken: string): Promise<boolean> =>
  (await introspect(server, rs1, accessToken)).body.active;

/** All that two answers could differ in, but for what every answer has of its own. */
function bytesOf({ status, headers, text }: Answer) {
  const own = /^(date|x-request-id|x?-?ratelimit.*)$/;
  return { status, headers: [...headers].filter(([name]) => !own.test(name)), text };
}

/** RFC 7009 §2.2: nothing to say, as JSON for clients that read nothing else, and nothing for a cache. */
function isRevoked(t: Test, answer: Answer, name = 'revoked'): void {
  t.equal(answer.status, 200, name);
  t.equal(answer.text, '{}', name);
  t.match(answer.headers.get('content-type'), /^application\/json/, name);
  t.equal(answer.headers.get('cache-control'), 'no-store', name);
}

const isSpent = (t: Test, answer: Answer, why = 'spent') =>
  isRefused(t, answer, 'invalid_grant', why);

const familyIdOf = (token: string) => parseOpaqueToken(token)?.familyId as string;

const thisSecond = `date_trunc('second', clock_timestamp())`;

/** Lets the clock of the database reach the end of a family, or of its access tokens only. */
const expire = (what: 'expires_at' | 'access_tokens', token: string) =>
  server.inspect.query(
    `update token_family
     set ${what} = ${what === 'expires_at' ? thisSecond : expiredAccessTokens} where id = $1`,
    [familyIdOf(token)],
  );

t.test('REV-01 RFC 7009 §2.2: a revoked refresh token is good for nothing', async (t) => {
  for (const caller of [c1, p1]) {
    const first = await logIn(caller);
    isRevoked(t, await revoke(server, caller, first.refresh), caller.id);
    isSpent(t, await refresh(server, caller, first.refresh), caller.id);
  }
  const spent = await logIn();
  const { body } = await refresh(server, c1, spent.refresh);
  isRevoked(t, await revoke(server, c1, spent.refresh), 'who lost the last response logs out');
  isSpent(t, await refresh(server, c1, body.refresh_token), 'the successor');
});

t.test('REV-02 RFC 7009 §2.1: with the refresh token go all access tokens', async (t) => {
  const pairs = [await logIn()];
  for (let { refresh: token } = pairs[0] as Pair; pairs.length < 4; ) {
    pairs.push(pairOf(await refresh(server, c1, token)));
    token = pairs.at(-1)?.refresh as string;
  }
  for (const { access } of pairs) t.ok(await isActive(access));
  isRevoked(t, await revoke(server, c1, pairs.at(-1)?.refresh as string));
  for (const { access } of pairs) t.notOk(await isActive(access));
});

t.test('REV-03 RFC 7009 §2.1: an access token ends only itself, and for good', async (t) => {
  const first = await logIn();
  const second = pairOf(await refresh(server, c1, first.refresh));
  isRevoked(t, await revoke(server, c1, second.access));
  t.notOk(await isActive(second.access));
  t.ok(await isActive(first.access), 'the one before lives');
  const retried = pairOf(await refresh(server, c1, first.refresh));
  t.equal(retried.refresh, second.refresh, 'a retry gets the same refresh token');
  t.not(retried.access, second.access, 'and another access token');
  t.equal((await refresh(server, c1, second.refresh)).status, 200, 'which keeps working');
  t.notOk(await isActive(second.access), 'the revoked one stays dead');
});

t.test('REV-04 RFC 7009 §2.2: a dead or unknown token is answered like a good one', async (t) => {
  const revoked = await logIn();
  const good = await revoke(server, c1, revoked.refresh);
  isRevoked(t, good);
  const expired = await logIn();
  await expire('expires_at', expired.refresh);
  await expire('access_tokens', expired.access);
  const live = await logIn();
  const tokens: Readonly<Record<string, string>> = {
    'unknown refresh token': formatRefreshToken(
      generateFamilyId(),
      generateLineage(),
      generateSecret(),
    ),
    'unknown access token': formatAccessToken(generateFamilyId(), generateSecret()),
    'unknown access token of a known family': formatAccessToken(
      familyIdOf(live.access),
      generateSecret(),
    ),
    'wrong lineage': formatRefreshToken(
      familyIdOf(live.refresh),
      generateLineage(),
      generateSecret(),
    ),
    'expired refresh token': expired.refresh,
    'expired access token': expired.access,
    'revoked refresh token': revoked.refresh,
    'access token of a revoked family': revoked.access,
    garbage: 'garbage',
    'cut short': live.refresh.slice(0, -1),
    JWT: 'eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbGljZSJ9.c2lnbmF0dXJl',
    'longer than any': `hrt_${'A'.repeat(600)}`,
  };
  for (const [name, token] of Object.entries(tokens)) {
    t.strictSame(bytesOf(await revoke(server, c1, token)), bytesOf(good), name);
  }
  t.ok(await isActive(live.access), 'and guesses revoke nothing');
  t.equal((await refresh(server, c1, live.refresh)).status, 200);
});

t.test('REV-06 RFC 7009 §2.1: the wrong hint hides no token', async (t) => {
  const { access, refresh: refreshToken } = await logIn();
  const wrong = { access: 'refresh_token', refresh: 'access_token' };
  isRevoked(t, await revoke(server, c1, access, { token_type_hint: wrong.access }));
  t.notOk(await isActive(access));
  isRevoked(t, await revoke(server, c1, refreshToken, { token_type_hint: wrong.refresh }));
  isSpent(t, await refresh(server, c1, refreshToken));
});

t.test('REV-07 RFC 7009 §2.2: an unknown or empty hint is ignored', async (t) => {
  for (const token_type_hint of ['foo', '', 'urn:example:token', 'ACCESS_TOKEN']) {
    const { access, refresh: refreshToken } = await logIn();
    isRevoked(t, await revoke(server, c1, access, { token_type_hint }), token_type_hint);
    t.notOk(await isActive(access), token_type_hint);
    isRevoked(t, await revoke(server, c1, refreshToken, { token_type_hint }), token_type_hint);
    isSpent(t, await refresh(server, c1, refreshToken), token_type_hint);
  }
});

t.test('REV-08 RFC 7009 §2.2.1: no token type is unsupported', async (t) => {
  const { access, refresh: refreshToken } = await logIn();
  for (const token of ['hcs_a-client-secret', 'eyJh.eyJz.c2ln', 'garbage', access, refreshToken]) {
    for (const token_type_hint of ['access_token', 'refresh_token', 'id_token', 'foo']) {
      isRevoked(t, await revoke(server, c1, token, { token_type_hint }), token_type_hint);
    }
  }
});

t.test('REV-15 RFC 7009 §2.1: a refresh token outlives its access token', async (t) => {
  const first = await logIn();
  await expire('access_tokens', first.access);
  t.notOk(await isActive(first.access));
  isRevoked(t, await revoke(server, c1, first.refresh));
  isSpent(t, await refresh(server, c1, first.refresh));
});

t.test('REV-16 RFC 7009 §2.2: tokens of somebody who is disabled can be revoked', async (t) => {
  await resourceOwners.create('frank', ALICE_PASSWORD);
  const first = pairOf(await login(server, c1, { username: 'frank' }));
  await resourceOwners.disable('frank');
  isRevoked(t, await revoke(server, c1, first.access));
  isRevoked(t, await revoke(server, c1, first.refresh));
  t.notOk(await isActive(first.access));
  await resourceOwners.enable('frank');
  isSpent(t, await refresh(server, c1, first.refresh), 'and stay dead');
});
