/**
 * Who may revoke, RFC 7009 §2.1:
 *
 * > The authorization server first validates the client credentials (in case of a confidential client) and
 * > then verifies whether the token was issued to the client making the revocation request. If this
 * > validation fails, the request is refused and the client is informed of the error.
 */
import t, { type Test } from 'tap';
import {
  formatAccessToken,
  formatRefreshToken,
  generateLineage,
  generateSecret,
  type PresentedToken,
  parseOpaqueToken,
} from '../../src/oauth/opaque-token.ts';
import { type Answer, basic, form, post, send } from '../support/client.ts';
import { isRefused } from '../support/errors.ts';
import { createCast, introspect, login, refresh, revoke } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t, { isRateLimitOn: false });
const { clients } = server.dependencies;
const { c1, c2, p1, rs1 } = await createCast(server);
await clients.create({
  clientId: 'P2',
  clientType: 'public',
  grantTypes: ['password', 'refresh_token'],
  scope: ['read', 'write'],
});
const p2 = { id: 'P2' };

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

/** RFC 7009 §2.2: nothing to say, and nothing for a cache. */
function isRevoked(t: Test, answer: Answer, name = 'revoked'): void {
  t.equal(answer.status, 200, name);
  t.equal(answer.text, '{}', name);
  t.equal(answer.headers.get('cache-control'), 'no-store', name);
}

t.test('REV-05 RFC 7009 §2.1: without a token it is invalid_request', async (t) => {
  const url = `${server.url}/revoke`;
  const authorization = basic(c1.id, c1.secret);
  const { access } = await logIn();
  for (const [name, parameters] of [
    ['missing', {}],
    ['empty', { token: '' }],
    ['only a hint', { token_type_hint: 'access_token' }],
    ['another name', { access_token: access }],
  ] as const) {
    const answer = await post(url, parameters, authorization);
    isRefused(t, answer, 'invalid_request', name);
  }
  t.ok(await isActive(access));
});

t.test('REV-09 RFC 7009 §2.1: another client’s token is refused, and stays active', async (t) => {
  const first = await logIn();
  const second = pairOf(await refresh(server, c1, first.refresh));
  for (const token of [second.access, second.refresh, first.refresh]) {
    isRefused(t, await revoke(server, c2, token), 'invalid_grant', 'confidential');
    isRevoked(t, await revoke(server, p1, token), 'anybody can claim a public name');
  }
  const { familyId } = parseOpaqueToken(second.access) as PresentedToken;
  for (const guessed of [
    formatAccessToken(familyId, generateSecret()),
    formatRefreshToken(familyId, generateLineage(), generateSecret()),
  ]) {
    isRevoked(t, await revoke(server, c2, guessed), 'whose family it names is not said');
  }
  t.ok(await isActive(first.access));
  t.ok(await isActive(second.access));
  t.equal((await refresh(server, c1, second.refresh)).status, 200);
});

t.test('REV-10 RFC 7009 §5: a public client revokes its own tokens and no others', async (t) => {
  const own = await logIn(p1);
  const others = [await logIn(p2), await logIn(c1)];
  for (const { access, refresh: refreshToken } of others) {
    isRevoked(t, await revoke(server, p1, access), 'not said, not done');
    isRevoked(t, await revoke(server, p1, refreshToken), 'not said, not done');
  }
  t.ok(await isActive(others[1]?.access as string));
  t.equal((await refresh(server, p2, others[0]?.refresh as string)).status, 200, 'P2 goes on');
  t.equal((await refresh(server, c1, others[1]?.refresh as string)).status, 200, 'C1 goes on');
  isRevoked(t, await revoke(server, p1, own.refresh));
  t.equal((await refresh(server, p1, own.refresh)).status, 400);
});

t.test('REV-11 RFC 7009 §2.1: without client authentication nothing is revoked', async (t) => {
  const { access, refresh: refreshToken } = await logIn();
  const url = `${server.url}/revoke`;
  for (const token of [access, refreshToken]) {
    const inBody = { token, client_id: c1.id, client_secret: 'wrong' };
    for (const [name, answer] of [
      ['no client at all', await post(url, { token })],
      ['no secret', await revoke(server, { id: c1.id }, token)],
      ['an empty secret', await revoke(server, { id: c1.id, secret: '' }, token)],
      ['a wrong secret', await revoke(server, { id: c1.id, secret: 'wrong' }, token)],
      ['a wrong secret in the body', await post(url, inBody)],
      ['the secret of another client', await revoke(server, { ...c1, secret: c2.secret }, token)],
      ['an unknown client', await revoke(server, { id: 'C9', secret: c1.secret }, token)],
    ] as const) {
      isRefused(t, answer, 'invalid_client', name);
    }
  }
  t.ok(await isActive(access));
  t.equal((await refresh(server, c1, refreshToken)).status, 200);
});

t.test('REV-12 RFC 7009 §2.1: a token in the query is not read', async (t) => {
  const { access, refresh: refreshToken } = await logIn();
  const headers = {
    'content-type': 'application/x-www-form-urlencoded',
    ...basic(c1.id, c1.secret),
  };
  for (const token of [access, refreshToken]) {
    const url = `${server.url}/revoke?${form({ token })}`;
    const answer = await send(url, { method: 'POST', headers, body: '' });
    isRefused(t, answer, 'invalid_request', 'an empty body');
  }
  t.ok(await isActive(access));
  t.equal((await refresh(server, c1, refreshToken)).status, 200);
});

t.test('REV-13 RFC 7009 §2.3: no answer is ever a script', async (t) => {
  const { access } = await logIn();
  const url = `${server.url}/revoke`;
  const authorization = basic(c1.id, c1.secret);
  for (const answer of [
    await post(`${url}?callback=f`, { token: access, callback: 'f' }, authorization),
    await revoke(server, c1, 'garbage', { callback: 'f' }),
  ]) {
    isRevoked(t, answer);
    t.notMatch(answer.headers.get('content-type') ?? '', /script/);
  }
  const refused = await post(`${url}?callback=f`, { callback: 'f' }, authorization);
  isRefused(t, refused, 'invalid_request', 'and neither is an error');
  t.equal(refused.headers.get('x-content-type-options'), 'nosniff');
});
