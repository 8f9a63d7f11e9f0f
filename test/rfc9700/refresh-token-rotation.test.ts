/**
 * Refresh token rotation, RFC 9700 §4.14.2:
 *
 * > The authorization server issues a new refresh token with every access token refresh response. The
 * > previous refresh token is invalidated, but information about the relationship is retained by the
 * > authorization server. If a refresh token is compromised and subsequently used by both the attacker
 * > and the legitimate client, one of them will present an invalidated refresh token, which will inform
 * > the authorization server of the breach.
 *
 * and FAPI 2.0 Security Profile §5.3.2.1, which asks that a retry with the previous token succeeds where
 * the response was lost. In the tests R0 is the first refresh token of a family, R1 its successor, and
 * A0, A1 … are the access tokens that came with them.
 */

import t from 'tap';
import { parseOpaqueToken } from '../../src/oauth/opaque-token.ts';
import { createTestDatabase } from '../support/database.ts';
import { isRefused } from '../support/errors.ts';
import { age } from '../support/family-rows.ts';
import {
  ALICE_PASSWORD,
  createCast,
  introspect,
  login,
  refresh,
  revoke,
} from '../support/fixtures.ts';
import { startServer, type TestServer } from '../support/server.ts';

const server = await startServer(t, { isRateLimitOn: false });
const { clients, resourceOwners } = server.dependencies;
const { c1, p1, rs1 } = await createCast(server);

/** The retry window of clients that were registered without their own. */
const WINDOW_SECONDS = server.dependencies.config.lifetimes.retryWindowSeconds;
const { accessTokenLifetimeSeconds } = server.dependencies.config.lifetimes;

async function isActive(token: string, on: TestServer = server): Promise<boolean> {
  const { status, body } = await introspect(on, rs1, token);
  return status === 200 && body.active;
}

/** R0 with A0, and R1 with A1. */
async function loginAndRotate(caller: Parameters<typeof login>[1] = c1) {
  const first = await login(server, caller);
  const second = await refresh(server, caller, first.body.refresh_token);
  return { first, second, r0: first.body.refresh_token, r1: second.body.refresh_token };
}

t.test('RFT-01 RFC 9700 §4.14.2: a refresh issues a new pair', async (t) => {
  const { first, second, r0, r1 } = await loginAndRotate();
  t.equal(second.status, 200);
  t.not(r1, r0);
  t.not(second.body.access_token, first.body.access_token);
  t.ok(await isActive(second.body.access_token));
  const third = await refresh(server, c1, r1);
  t.equal(third.status, 200);
  t.equal(new Set([r0, r1, third.body.refresh_token]).size, 3);
});

t.test('RFT-02 RFC 9700 §4.14.2: a spent token after its window ends the family', async (t) => {
  const { first, second, r0, r1 } = await loginAndRotate();
  await age(server, second, WINDOW_SECONDS + 1);
  t.ok(await isActive(first.body.access_token));
  t.ok(await isActive(second.body.access_token));
  isRefused(t, await refresh(server, c1, r0), 'invalid_grant', 'R0, the replay');
  isRefused(t, await refresh(server, c1, r1), 'invalid_grant', 'R1, which was good until then');
  t.notOk(await isActive(first.body.access_token), 'A0');
  t.notOk(await isActive(second.body.access_token), 'A1');
  const events = await server.inspect.query(
    'select kind, client_id from security_event where family_id = $1',
    [parseOpaqueToken(r0)?.familyId],
  );
  t.strictSame(events.rows, [{ kind: 'refresh_token_replay', client_id: 'C1' }]);
});

t.test('RFT-03 FAPI 2.0 SP §5.3.2.1: a retry inside the window gets the same answer', async (t) => {
  for (const caller of [c1, p1]) {
    const { second, r0, r1 } = await loginAndRotate(caller);
    await age(server, second, WINDOW_SECONDS - 10);
    const again = await refresh(server, caller, r0);
    const { expires_in, ...body } = again.body;
    const { expires_in: atFirst, ...bodyAtFirst } = second.body;
    t.equal(again.status, 200);
    t.strictSame(body, bodyAtFirst, 'the same tokens, byte for byte');
    t.equal(atFirst, accessTokenLifetimeSeconds);
    const left = accessTokenLifetimeSeconds - (WINDOW_SECONDS - 10);
    t.ok(expires_in <= left && expires_in > left - 10, `${expires_in} s left of ${left} s`);

    const narrower = await refresh(server, caller, r0, { scope: 'read' });
    t.match(narrower, { status: 200, body: { refresh_token: r1, scope: 'read' } });
    t.not(narrower.body.access_token, second.body.access_token, 'another scope, another token');
    t.equal((await refresh(server, caller, r1)).status, 200, 'and R1 is good');
  }
});

t.test(
  'RFT-04 RFC 9700 §4.14.2: once R1 is used, R0 inside both windows is a replay',
  async (t) => {
    const { second, r0, r1 } = await loginAndRotate();
    const third = await refresh(server, c1, r1);
    t.equal(third.status, 200);
    isRefused(t, await refresh(server, c1, r0), 'invalid_grant', 'R0');
    isRefused(
      t,
      await refresh(server, c1, r1),
      'invalid_grant',
      'R1, although its own window is open',
    );
    isRefused(t, await refresh(server, c1, third.body.refresh_token), 'invalid_grant', 'R2');
    t.notOk(await isActive(second.body.access_token), 'A1');
    t.notOk(await isActive(third.body.access_token), 'A2');
  },
);

t.test('RFT-05 RFC 9700 §4.14.2: with no window every second showing is a replay', async (t) => {
  await clients.create({
    clientId: 'strict',
    clientType: 'public',
    grantTypes: ['password', 'refresh_token'],
    scope: ['read'],
    retryWindowSeconds: 0,
  });
  const strict = { id: 'strict' };
  const { second, r0, r1 } = await loginAndRotate(strict);
  t.equal(second.status, 200);
  isRefused(t, await refresh(server, strict, r0), 'invalid_grant', 'R0');
  isRefused(t, await refresh(server, strict, r1), 'invalid_grant', 'R1');
});

t.test('RFT-09 RFC 9700 §4.14.2: a retry does not make the window longer', async (t) => {
  const { second, r0, r1 } = await loginAndRotate();
  await age(server, second, WINDOW_SECONDS - 20);
  const retried = await refresh(server, c1, r0);
  t.match(retried, { status: 200, body: { refresh_token: r1 } }, '20 s before the end');
  await age(server, second, 10);
  t.equal((await refresh(server, c1, r0)).status, 200, '10 s before the end');
  await age(server, second, 10);
  isRefused(
    t,
    await refresh(server, c1, r0),
    'invalid_grant',
    'when the window since the rotation is over',
  );
  isRefused(t, await refresh(server, c1, r1), 'invalid_grant', 'R1');
});

t.test('RFT-22 RFC 9700 §4.14.2: a new password ends every family of the person', async (t) => {
  await resourceOwners.create('erin', ALICE_PASSWORD);
  const erin = { username: 'erin' };
  const families = [await login(server, c1, erin), await login(server, p1, erin)];
  const rotated = await refresh(server, c1, families[0]?.body.refresh_token);
  const alice = await login(server, c1);
  await resourceOwners.setPassword('erin', 'another phrase that only erin knows');

  isRefused(
    t,
    await refresh(server, c1, rotated.body.refresh_token),
    'invalid_grant',
    'C1, current',
  );
  isRefused(
    t,
    await refresh(server, c1, families[0]?.body.refresh_token),
    'invalid_grant',
    'C1, in its window',
  );
  isRefused(t, await refresh(server, p1, families[1]?.body.refresh_token), 'invalid_grant', 'P1');
  t.notOk(await isActive(families[0]?.body.access_token));
  t.notOk(await isActive(rotated.body.access_token));
  t.equal((await refresh(server, c1, alice.body.refresh_token)).status, 200, 'alice stays');
});

t.test('RFT-24 RFC 9700 §4.14.2: a replay in one family leaves the others alone', async (t) => {
  const { first, second, r0 } = await loginAndRotate();
  const other = await login(server, c1);
  await age(server, second, WINDOW_SECONDS + 1);
  isRefused(t, await refresh(server, c1, r0), 'invalid_grant', 'the replay');
  t.notOk(await isActive(first.body.access_token));
  t.ok(await isActive(other.body.access_token), 'same person, same client, other family');
  t.equal((await refresh(server, c1, other.body.refresh_token)).status, 200);
});

t.test('RFT-25 RFC 9700 §4.14.2: what a replay ended stays ended after a restart', async (t) => {
  const database = await createTestDatabase(t);
  const before = await startServer(t, { database, isRateLimitOn: false });
  const cast = await createCast(before);
  const first = await login(before, cast.c1);
  const second = await refresh(before, cast.c1, first.body.refresh_token);
  const third = await refresh(before, cast.c1, second.body.refresh_token);
  isRefused(
    t,
    await refresh(before, cast.c1, first.body.refresh_token),
    'invalid_grant',
    'the replay',
  );
  await before.app.close();
  await before.dependencies.close();

  const after = await startServer(t, { database, isRateLimitOn: false });
  isRefused(t, await refresh(after, cast.c1, third.body.refresh_token), 'invalid_grant', 'R2');
  for (const { body } of [first, second, third]) {
    const answer = await introspect(after, cast.rs1, body.access_token);
    t.strictSame(answer.body, { active: false });
  }
});

t.test('RFT-26 RFC 7009 §2.1: no window brings a revoked family back', async (t) => {
  const { first, second, r0, r1 } = await loginAndRotate();
  t.equal((await revoke(server, c1, r1)).status, 200);
  isRefused(t, await refresh(server, c1, r0), 'invalid_grant', 'R0 inside its window');
  isRefused(t, await refresh(server, c1, r1), 'invalid_grant', 'R1');
  t.notOk(await isActive(first.body.access_token));
  t.notOk(await isActive(second.body.access_token));
});

t.test(
  'RFT-30 RFC 9700 §4.14.2: the access token before a rotation runs out by itself',
  async (t) => {
    const { first, second } = await loginAndRotate();
    t.ok(await isActive(first.body.access_token), 'requests in flight do not fail');
    await age(server, first, accessTokenLifetimeSeconds - 10);
    t.ok(await isActive(first.body.access_token), 'until shortly before its own expiry');
    t.ok(await isActive(second.body.access_token));
    await age(server, first, 10);
    t.notOk(await isActive(first.body.access_token), 'and no longer');

    const revoked = await loginAndRotate();
    await revoke(server, c1, revoked.r1);
    t.notOk(await isActive(revoked.first.body.access_token), 'revocation ends it at once');

    const replayed = await loginAndRotate();
    await age(server, replayed.second, WINDOW_SECONDS + 1);
    await refresh(server, c1, replayed.r0);
    t.notOk(await isActive(replayed.first.body.access_token), 'and so does a replay');
  },
);
