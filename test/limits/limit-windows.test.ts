/** What whoever has met a limit is told of its window, and when it has ended. The test is the counter. */
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { RequestCount } from '../../src/request-counter.ts';
import { post } from '../support/client.ts';
import { createCast } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const FAR_ABOVE = 10_000;

/** A server whose limits count what the test says about a key; about others, nothing has been asked before. */
async function startScene(t: Test) {
  const asked: string[] = [];
  let spent: { readonly kind: string; readonly count: RequestCount } | undefined;
  const server = await startServer(t, {
    trustProxy: 1,
    sharedCounter: {
      async increment(key, windowMilliseconds) {
        asked.push(key);
        const isSpent = spent !== undefined && key.startsWith(`${spent.kind} `);
        return isSpent && spent ? spent.count : { count: 1, millisecondsLeft: windowMilliseconds };
      },
    },
  });
  await createCast(server);
  const ask = (path: string, parameters: Record<string, string>, address: string) =>
    post(
      `${server.url}${path}`,
      { client_id: 'P1', ...parameters },
      { 'x-forwarded-for': address },
    );
  return {
    server,
    /** How often it was asked about a kind of requests. */
    asked: (kind: string) => asked.filter((key) => key.startsWith(`${kind} `)).length,
    spend: (kind: string, millisecondsLeft: number) => {
      spent = { kind, count: { count: FAR_ABOVE, millisecondsLeft } };
    },
    restore: () => {
      spent = undefined;
    },
    /** Refused for its scope, where it is not refused for the limit. */
    login: (address: string) => ask('/token', { grant_type: 'password', scope: '"' }, address),
    refresh: (address: string, client_id = 'P1') =>
      ask('/token', { grant_type: 'refresh_token', client_id, refresh_token: 'hrt_x' }, address),
    revoke: (address: string) => ask('/revoke', { token: 'hrt_x' }, address),
  };
}

t.test('what is left of the window is told, in whole seconds that suffice', async (t) => {
  const { spend, login } = await startScene(t);
  for (const [n, [millisecondsLeft, seconds]] of [
    [41_200, '42'],
    [1000, '1'],
    [3, '1'],
    [0, '1'],
  ].entries() as Iterable<[number, [number, string]]>) {
    spend('password', millisecondsLeft);
    const { status, headers } = await login(`203.0.113.${n}`);
    t.equal(status, 429);
    t.match(Object.fromEntries(headers), {
      'retry-after': seconds,
      'ratelimit-limit': '30',
      'ratelimit-remaining': '0',
      'ratelimit-reset': seconds,
    });
  }
});

t.test('a refresh is asked back within its retry window, and no later than it may', async (t) => {
  const { server, spend, refresh } = await startScene(t);
  const retryAfter = async (retryWindowSeconds: number, millisecondsLeft: number) => {
    const clientId = `${retryWindowSeconds}-${millisecondsLeft}`;
    await server.dependencies.clients.create({
      clientId,
      clientType: 'public',
      grantTypes: ['password', 'refresh_token'],
      scope: ['read'],
      retryWindowSeconds,
    });
    spend('refresh_token', millisecondsLeft);
    const { status, headers } = await refresh('203.0.113.7', clientId);
    t.equal(status, 503);
    return headers.get('retry-after');
  };
  t.equal(await retryAfter(60, 41_200), '15');
  t.equal(await retryAfter(60, 5200), '6', 'its window ends before that');
  t.equal(await retryAfter(7, 41_200), '1', 'rounded down');
  t.equal(await retryAfter(0, 41_200), '1', 'but not to an invitation to come at once');
});

t.test('a window that has ended refuses nobody, and until then nobody need count', async (t) => {
  const { asked, spend, restore, login } = await startScene(t);
  spend('password', 60_000);
  t.equal((await login('203.0.113.7')).status, 429);
  restore();
  const before = asked('password');
  const { status, headers } = await login('203.0.113.7');
  t.equal(status, 429);
  t.match(headers.get('retry-after'), /^(60|[1-5]?\d)$/);
  t.equal(asked('password'), before, 'a flood does not reach what is shared');
  t.equal((await login('203.0.113.8')).status, 400, 'of another network nothing is known');
  spend('password', 50);
  t.equal((await login('203.0.113.9')).status, 429);
  restore();
  await delay(100);
  t.equal((await login('203.0.113.9')).status, 400);
});

t.test('each endpoint has a count of its own before the body is read', async (t) => {
  const { spend, login, revoke } = await startScene(t);
  spend('/token', 1000);
  const { status, headers } = await login('203.0.113.7');
  t.equal(status, 429);
  t.match(Object.fromEntries(headers), { 'retry-after': '1', 'ratelimit-limit': '600' });
  t.equal((await revoke('203.0.113.7')).status, 200, 'whoever floods one can still log out');
});
