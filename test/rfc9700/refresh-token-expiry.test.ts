/**
 * How long a family lives, RFC 9700 §4.14.2:
 *
 * > Refresh tokens SHOULD expire if the client has been inactive for some time, i.e., the refresh token
 * > has not been used to obtain fresh access tokens for some time.
 *
 * and "OAuth 2.0 for Browser-Based Applications" §6.3.2.3, by which a rotation must not extend the
 * lifetime of the first refresh token.
 */

import t from 'tap';
import { parseOpaqueToken } from '../../src/oauth/opaque-token.ts';
import { type Answer, basic, post } from '../support/client.ts';
import { isRefused } from '../support/errors.ts';
import { age } from '../support/family-rows.ts';
import { ALICE_PASSWORD, login, refresh } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t, { isRateLimitOn: false });
const { clients, resourceOwners } = server.dependencies;
await resourceOwners.create('alice', ALICE_PASSWORD);

const ACCESS_SECONDS = 60;
const IDLE_SECONDS = 100;
const ABSOLUTE_SECONDS = 500;
const { clientSecret } = await clients.create({
  clientId: 'C1',
  clientType: 'confidential',
  grantTypes: ['password', 'refresh_token'],
  scope: ['read', 'write'],
  introspectionRight: 'own',
  accessTokenLifetimeSeconds: ACCESS_SECONDS,
  refreshTokenIdleLifetimeSeconds: IDLE_SECONDS,
  refreshTokenLifetimeSeconds: ABSOLUTE_SECONDS,
  retryWindowSeconds: 50,
});
const c1 = { id: 'C1', secret: clientSecret as string };

const introspect = (token: string): Promise<Answer> =>
  post(`${server.url}/introspect`, { token }, basic(c1.id, c1.secret));

/** What its own client sees of a pair: whether access and refresh token are active. */
async function activity({ body }: Answer): Promise<readonly [boolean, boolean]> {
  const access = await introspect(body.access_token);
  const refreshing = await introspect(body.refresh_token);
  return [access.body.active, refreshing.body.active];
}

t.test('RFT-14 RFC 9700 §4.14.2: a family unused for the idle period is over', async (t) => {
  const unused = await login(server, c1);
  await age(server, unused, IDLE_SECONDS);
  t.strictSame(await activity(unused), [false, false], 'at the very second');
  isRefused(
    t,
    await refresh(server, c1, unused.body.refresh_token),
    'invalid_grant',
    'at the very second',
  );

  let held = await login(server, c1);
  for (let rotation = 1; rotation <= 4; rotation++) {
    await age(server, held, IDLE_SECONDS - 10);
    held = await refresh(server, c1, held.body.refresh_token);
    t.equal(held.status, 200, `rotation ${rotation} starts the period again`);
    t.strictSame(await activity(held), [true, true]);
  }
  await age(server, held, IDLE_SECONDS);
  t.strictSame(await activity(held), [false, false], 'the period after the last one');
  isRefused(t, await refresh(server, c1, held.body.refresh_token), 'invalid_grant', 'the last one');
});

t.test('RFT-15 RFC 9700 §4.14.2: nothing of a family lives past its first deadline', async (t) => {
  const pairs = [await login(server, c1)];
  const last = () => pairs.at(-1) as Answer;
  for (let passed = 0; passed < ABSOLUTE_SECONDS - 80; passed += 80) {
    await age(server, last(), 80);
    pairs.push(await refresh(server, c1, last().body.refresh_token));
    t.equal(last().status, 200);
  }
  await age(server, last(), 10);
  t.strictSame(await activity(last()), [true, true], '10 s before');
  await age(server, last(), 10);
  for (const pair of pairs) t.strictSame(await activity(pair), [false, false], 'at the deadline');
  isRefused(
    t,
    await refresh(server, c1, last().body.refresh_token),
    'invalid_grant',
    'the current one',
  );
  isRefused(
    t,
    await refresh(server, c1, pairs.at(-2)?.body.refresh_token),
    'invalid_grant',
    'its parent',
  );
});

t.test('RFT-16 RFC 9700 §4.14.2: no token is promised beyond the family’s end', async (t) => {
  const first = await login(server, c1);
  t.equal(first.body.expires_in, ACCESS_SECONDS);
  const { exp: idleEnd } = (await introspect(first.body.refresh_token)).body;
  const deadline = idleEnd - IDLE_SECONDS + ABSOLUTE_SECONDS;

  let pair = first;
  for (const passed of [90, 180, 270, 360, 450]) {
    await age(server, pair, 90);
    pair = await refresh(server, c1, pair.body.refresh_token);
    t.equal(pair.status, 200);
    const left = ABSOLUTE_SECONDS - passed;
    const access = (await introspect(pair.body.access_token)).body;
    const refreshing = (await introspect(pair.body.refresh_token)).body;
    t.equal(access.exp - access.iat, pair.body.expires_in);
    t.ok(access.exp <= deadline - passed, `${passed} s: the access token ends with the family`);
    t.ok(refreshing.exp <= deadline - passed, `${passed} s: and so does the refresh token`);
    if (left > ACCESS_SECONDS) t.equal(pair.body.expires_in, ACCESS_SECONDS);
    else
      t.ok(pair.body.expires_in <= left && pair.body.expires_in > left - 10, 'expires_in shrinks');
  }
  const again = await refresh(server, c1, pair.body.refresh_token, { scope: 'read' });
  t.ok(again.body.expires_in <= 50, 'in a rotation that narrows');
  const retried = await refresh(server, c1, pair.body.refresh_token, { scope: 'write' });
  t.equal(retried.status, 200);
  t.ok(retried.body.expires_in <= 50, 'and in a retry that issues another one');

  await clients.create({
    clientId: 'brief',
    clientType: 'public',
    grantTypes: ['password', 'refresh_token'],
    scope: ['read'],
    refreshTokenLifetimeSeconds: 120,
  });
  const brief = await login(server, { id: 'brief' });
  t.equal(brief.body.expires_in, 120, 'nor in a login, whatever the other lifetimes are');
  const { rows } = await server.inspect.query(
    `select extract(epoch from idle_expires_at - date_trunc('second', started_at))::int as seconds
     from token_family where id = $1`,
    [parseOpaqueToken(brief.body.refresh_token)?.familyId],
  );
  t.strictSame(rows, [{ seconds: 120 }]);
});
