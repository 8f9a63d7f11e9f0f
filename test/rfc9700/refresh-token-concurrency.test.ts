/**
 * One refresh token in many requests at once: tabs, server-side rendering, a proxy that sends a request
 * again. RFC 9700 §4.14.2 has one successor per token, and two requests must not both make one.
 */
import t, { type Test } from 'tap';
import type { Answer } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import { createCast, introspect, invalidGrantBody, login, refresh } from '../support/fixtures.ts';
import { startServer, type TestServer } from '../support/server.ts';

const REQUESTS = 50;

const database = await createTestDatabase(t);
const one = await startServer(t, { database, isRateLimitOn: false });
const other = await startServer(t, { database, isRateLimitOn: false });
const { c1, rs1 } = await createCast(one);
const strict = { id: 'strict' };
await one.dependencies.clients.create({
  clientId: strict.id,
  clientType: 'public',
  grantTypes: ['password', 'refresh_token'],
  scope: ['read', 'write'],
  retryWindowSeconds: 0,
});

/** Sends the same refresh many times at once, in turn to each of the servers. */
const storm = (
  servers: readonly TestServer[],
  caller: Parameters<typeof refresh>[1],
  refreshToken: string,
): Promise<Answer[]> =>
  Promise.all(
    Array.from({ length: REQUESTS }, (_, index) =>
      refresh(servers[index % servers.length] as TestServer, caller, refreshToken),
    ),
  );

const distinct = (answers: readonly Answer[], member: string) =>
  new Set(answers.map(({ body }) => body[member]));

/** With the window open everybody gets the one successor, and nobody is taken for a thief. */
async function assertOneSuccessor(t: Test, servers: readonly TestServer[]): Promise<void> {
  for (let round = 0; round < 3; round++) {
    const first = await login(one, c1);
    const answers = await storm(servers, c1, first.body.refresh_token);
    t.strictSame(new Set(answers.map(({ status }) => status)), new Set([200]));
    t.equal(distinct(answers, 'refresh_token').size, 1, 'one refresh token');
    t.equal(distinct(answers, 'access_token').size, 1, 'one access token');
    t.notSame(distinct(answers, 'refresh_token'), new Set([first.body.refresh_token]));
    for (const server of servers) {
      const { body } = await introspect(server, rs1, answers[0]?.body.access_token);
      t.match(body, { active: true }, 'which is active');
    }
    const next = await refresh(servers.at(-1) as TestServer, c1, answers[0]?.body.refresh_token);
    t.equal(next.status, 200, 'the next refresh works');
  }
}

t.test('RFT-06 RFC 9700 §4.14.2: 50 parallel refreshes all get the one successor', (t) =>
  assertOneSuccessor(t, [one]),
);

t.test('RFT-07 RFC 9700 §4.14.2: so do 50 parallel refreshes on two instances', (t) =>
  assertOneSuccessor(t, [one, other]),
);

t.test('RFT-08 RFC 9700 §4.14.2: with no window exactly one of 50 is answered', async (t) => {
  for (const servers of [[one], [one, other]]) {
    const first = await login(one, strict);
    const answers = await storm(servers, strict, first.body.refresh_token);
    const winners = answers.filter(({ status }) => status === 200);
    const others = answers.filter(({ status }) => status === 400).map(({ body }) => body);
    t.equal(winners.length, 1);
    t.strictSame(others, Array(REQUESTS - 1).fill(invalidGrantBody));
    // Every other showing was a replay, so the winner's tokens are dead: a thief keeps nothing.
    const next = await refresh(other, strict, winners[0]?.body.refresh_token);
    t.match(next, { status: 400, body: invalidGrantBody });
    const { rows } = await one.inspect.query(
      `select count(*)::int as events from security_event
       where kind = 'refresh_token_replay' and client_id = 'strict'
       and family_id = (select id from token_family order by started_at desc limit 1)`,
    );
    t.strictSame(rows, [{ events: 1 }], 'one event tells of it, not 49');
  }
});
