/**
 * The retry of a lost response: the parent of the current refresh token, shown again inside its window.
 *
 * FAPI 2.0 Security Profile §5.3.2.1: a server "shall not use refresh token rotation unless, in the case a
 * response with a new refresh token is not received and stored by the client, retrying the request (with
 * the previous refresh token) will succeed". It gets the same successor, and never brings anything back
 * that was revoked (RFC 7009 §2.1).
 */

import t from 'tap';
import { parseOpaqueToken } from '../../src/oauth/opaque-token.ts';
import type { Answer } from '../support/client.ts';
import { expiredAccessTokens, shiftedFamily } from '../support/family-rows.ts';
import {
  createCast,
  introspect,
  invalidGrantBody,
  login,
  refresh,
  revoke,
} from '../support/fixtures.ts';
import { matchEach } from '../support/match.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t, { isRateLimitOn: false });
const { clients, config, tokens } = server.dependencies;
const { c1, rs1 } = await createCast(server);

const WINDOW_SECONDS = config.lifetimes.retryWindowSeconds;
const { accessTokenLifetimeSeconds } = config.lifetimes;
const MAXIMUM_ACCESS_TOKENS = 16;

const familyIdOf = ({ body }: Answer): string =>
  parseOpaqueToken(body.refresh_token)?.familyId as string;

const forgetOutages = () =>
  server.inspect.query(
    `update server_state
     set pulse_at = clock_timestamp(), outage_began_at = null, resumed_at = null`,
  );

/** Lets time pass for one family. While the service is down it gives no sign of life. */
async function pass(seconds: number, answer: Answer, service: 'up' | 'down' = 'up') {
  await server.inspect.query(
    `with passed as (select $2 * interval '1 second' as time), family as (
       update token_family set ${shiftedFamily} from passed where id = $1
     )
     update server_state set
       pulse_at = case when $3 then clock_timestamp() else clock_timestamp() - time end,
       outage_began_at = outage_began_at - time, resumed_at = resumed_at - time
     from passed`,
    [familyIdOf(answer), seconds, service === 'up'],
  );
}

async function readOutage(): Promise<{ seconds: number } | undefined> {
  const { rows } = await server.inspect.query(
    'select extract(epoch from resumed_at - outage_began_at)::float8 as seconds from server_state',
  );
  return rows[0].seconds === null ? undefined : rows[0];
}

async function countAccessTokens(answer: Answer): Promise<number> {
  const { rows } = await server.inspect.query(
    'select cardinality(access_tokens) as count from token_family where id = $1',
    [familyIdOf(answer)],
  );
  return rows[0].count;
}

const isActive = async (accessToken: string): Promise<boolean> =>
  (await introspect(server, rs1, accessToken)).body.active;

/** A family whose first refresh token was spent a moment ago: R0 and A0, R1 and A1. */
async function loginAndRotate(caller: Parameters<typeof login>[1] = c1) {
  await forgetOutages();
  const first = await login(server, caller);
  const second = await refresh(server, caller, first.body.refresh_token);
  return {
    second,
    r0: first.body.refresh_token as string,
    r1: second.body.refresh_token as string,
    a1: second.body.access_token as string,
  };
}

const replayed = { status: 400, body: invalidGrantBody };

t.test('FAPI 2.0 SP §5.3.2.1: a retry does not bring a revoked access token back', async (t) => {
  const { r0, r1, a1 } = await loginAndRotate();
  await revoke(server, c1, a1);
  const retries = [await refresh(server, c1, r0), await refresh(server, c1, r0)];
  for (const { status, body } of retries) {
    t.equal(status, 200);
    t.equal(body.refresh_token, r1, 'the same successor');
    t.not(body.access_token, a1, 'another access token');
    t.equal(body.expires_in, accessTokenLifetimeSeconds, 'a fresh one');
    t.ok(await isActive(body.access_token));
  }
  t.notOk(await isActive(a1), 'what was revoked stays revoked');
  t.equal((await refresh(server, c1, r1)).status, 200, 'the family lives');
  t.notOk(await isActive(a1));
});

t.test('FAPI 2.0 SP §5.3.2.1: a retry for another scope gets a token of its own', async (t) => {
  const { r0, r1, a1 } = await loginAndRotate();
  const narrower = await refresh(server, c1, r0, { scope: 'write' });
  t.match(narrower, { status: 200, body: { refresh_token: r1, scope: 'write' } });
  t.not(narrower.body.access_token, a1);
  const { body } = await introspect(server, rs1, narrower.body.access_token);
  t.match(body, { active: true, scope: 'write' });
  const same = await refresh(server, c1, r0, { scope: 'write read' });
  t.match(same.body, { access_token: a1, scope: /^(read write|write read)$/ }, 'order is no scope');
  t.equal((await refresh(server, c1, r0)).body.access_token, a1, 'and A1 for the scope of A1');
});

t.test('FAPI 2.0 SP §5.3.2.1: a retry gets a fresh token where the first is gone', async (t) => {
  for (const [name, accessTokens] of [
    ['expired', expiredAccessTokens],
    ['deleted', `'{}'`],
  ] as const) {
    const { second, r0, r1, a1 } = await loginAndRotate();
    const change = `update token_family set access_tokens = ${accessTokens} where id = $1`;
    await server.inspect.query(change, [familyIdOf(second)]);
    const retried = await refresh(server, c1, r0);
    t.match(retried, { status: 200, body: { refresh_token: r1 } }, name);
    t.not(retried.body.access_token, a1, name);
    t.equal(retried.body.expires_in, accessTokenLifetimeSeconds, name);
    t.ok(await isActive(retried.body.access_token), name);
    t.notOk(await isActive(a1), name);
  }
});

t.test('RFC 6749 §5.1: expires_in of a retry counts what is left', async (t) => {
  const { second, r0, a1 } = await loginAndRotate();
  await pass(WINDOW_SECONDS - 20, second);
  const { body } = await refresh(server, c1, r0);
  t.equal(body.access_token, a1);
  const left = accessTokenLifetimeSeconds - (WINDOW_SECONDS - 20);
  t.ok(body.expires_in <= left && body.expires_in > left - 20, `${body.expires_in} of ${left} s`);
});

t.test('RFC 9700 §4.14.2: retries leave a family with 16 access tokens at most', async (t) => {
  const { second, r0, r1 } = await loginAndRotate();
  for (let retry = 0; retry < 40; retry++) {
    const { status, body } = await refresh(server, c1, r0, { scope: retry % 2 ? 'read' : 'write' });
    t.match({ status, body }, { status: 200, body: { refresh_token: r1 } });
    t.ok((await countAccessTokens(second)) <= MAXIMUM_ACCESS_TOKENS);
    t.ok(await isActive(body.access_token), 'the one that was just issued is good');
  }
  t.equal(await countAccessTokens(second), MAXIMUM_ACCESS_TOKENS);
});

t.test('RFC 9700 §4.14.2: above 16 access tokens the oldest goes', async (t) => {
  const first = await login(server, c1);
  const accessTokens = [first.body.access_token];
  for (let { body } = first; accessTokens.length < 24; ) {
    ({ body } = await refresh(server, c1, body.refresh_token));
    accessTokens.push(body.access_token);
  }
  const activity = await Promise.all(accessTokens.map(isActive));
  const kept = Array(MAXIMUM_ACCESS_TOKENS).fill(true);
  t.strictSame(activity, [...Array(24 - MAXIMUM_ACCESS_TOKENS).fill(false), ...kept]);
});

t.test('RFC 9700 §4.14.2: the window is the one that was in force at the rotation', async (t) => {
  const caller = { id: 'changing' };
  await clients.create({
    clientId: caller.id,
    clientType: 'public',
    grantTypes: ['password', 'refresh_token'],
    scope: ['read'],
    retryWindowSeconds: 100,
  });
  const wide = await loginAndRotate(caller);
  await clients.update(caller.id, { retryWindowSeconds: 0 });
  await pass(80, wide.second);
  const retried = await refresh(server, caller, wide.r0);
  t.match(retried, { status: 200, body: { refresh_token: wide.r1 } }, '80 s of 100 s');
  await pass(20, wide.second);
  t.match(await refresh(server, caller, wide.r0), replayed, '100 s of 100 s');

  const strict = await loginAndRotate(caller);
  await clients.update(caller.id, { retryWindowSeconds: 300 });
  t.match(await refresh(server, caller, strict.r0), replayed, 'none stays none');
});

t.test('FAPI 2.0 SP §5.3.2.1: an outage starts the window again, whoever finds it', async (t) => {
  const finders = {
    'the retry itself': async () => {},
    'an instance that starts': () => tokens.recordPulse(),
  };
  for (const [name, find] of Object.entries(finders)) {
    const { second, r0, r1 } = await loginAndRotate();
    await pass(WINDOW_SECONDS - 10, second);
    await pass(100, second, 'down');
    await find();
    t.match(await refresh(server, c1, r0), { status: 200, body: { refresh_token: r1 } }, name);
    const outage = await readOutage();
    t.ok(outage && outage.seconds >= 100 && outage.seconds < 120, `${outage?.seconds} s recorded`);
    await pass(WINDOW_SECONDS - 10, second);
    t.equal((await refresh(server, c1, r0)).status, 200, 'a whole window since it is over');
    await pass(10, second);
    t.match(await refresh(server, c1, r0), replayed, 'and no more');
  }
});

t.test('FAPI 2.0 SP §5.3.2.1: an outage opens no window that had closed', async (t) => {
  const { second, r0 } = await loginAndRotate();
  await pass(WINDOW_SECONDS, second);
  await pass(100, second, 'down');
  t.match(await refresh(server, c1, r0), replayed);
});

t.test('FAPI 2.0 SP §5.3.2.1: a hiccup is no outage', async (t) => {
  const { second, r0 } = await loginAndRotate();
  await pass(WINDOW_SECONDS - 5, second);
  await pass(5, second, 'down');
  t.match(await refresh(server, c1, r0), replayed, 'the window is over');
  t.equal(await readOutage(), undefined);
});

t.test('FAPI 2.0 SP §5.3.2.1: a second outage loses no window of the first', async (t) => {
  const { second, r0, r1 } = await loginAndRotate();
  await pass(WINDOW_SECONDS - 10, second);
  await pass(100, second, 'down');
  await tokens.recordPulse();
  await pass(WINDOW_SECONDS - 10, second);
  await pass(50, second, 'down');
  t.match(await refresh(server, c1, r0), { status: 200, body: { refresh_token: r1 } });
});

t.test(
  'RFC 9700 §4.14.2: a clock that leapt ahead and was set right opens no window',
  async (t) => {
    const { second, r0, r1 } = await loginAndRotate();
    await server.inspect.query(
      `update server_state set
       outage_began_at = clock_timestamp() - interval '10 s',
       resumed_at = clock_timestamp() + interval '1 year',
       pulse_at = clock_timestamp() + interval '1 year'`,
    );
    await tokens.recordPulse();
    await pass(WINDOW_SECONDS - 10, second);
    t.match(await refresh(server, c1, r0), { status: 200, body: { refresh_token: r1 } });
    await pass(10, second);
    t.match(await refresh(server, c1, r0), replayed, 'a window after it was set right');
    await forgetOutages();
  },
);

t.test('FAPI 2.0 SP §5.3.2.1: a damaged family is our fault, and not its client’s', async (t) => {
  const { second, r0, r1 } = await loginAndRotate();
  await server.inspect.query('update token_family set successor_salt = $2 where id = $1', [
    familyIdOf(second),
    Buffer.alloc(32),
  ]);
  const linesBefore = server.logs.length;
  const answer = await refresh(server, c1, r0);
  t.equal(answer.status, 503);
  t.strictSame(answer.body, { error: 'temporarily_unavailable' });
  t.match(answer.headers.get('retry-after'), /^[1-9][0-9]*$/);
  const lines = server.logs.slice(linesBefore).map((line) => JSON.parse(line));
  matchEach(
    t,
    lines.filter(({ level }) => level >= 50),
    [{ event: 'unavailable', detail: /damaged family/ }],
    'somebody is told',
  );
  t.ok(await isActive(second.body.access_token), 'nothing was revoked');
  t.equal((await refresh(server, c1, r1)).status, 200, 'and R1 is good');
});

t.test('retries that need another access token do not stand in line for each other', async (t) => {
  const spent: string[] = [];
  for (let n = 0; n < 30; n++) {
    const { body } = await login(server, c1);
    spent.push(body.refresh_token);
    await refresh(server, c1, body.refresh_token);
  }
  for (let round = 0; round < 4; round++) {
    const answers = await Promise.all(
      spent.map((token) => refresh(server, c1, token, { scope: 'read' })),
    );
    t.strictSame(new Set(answers.map(({ status }) => status)), new Set([200]));
  }
});
