/** The optional cache of introspections: off unless asked for, and never beyond what it promises. */
import type { ServerResponse } from 'node:http';
import t, { type Test } from 'tap';
import { createTokenGuard } from '../../src/resource-server/resource-server.ts';
import { bearer, listen } from './apis.ts';

const nowSeconds = () => Math.floor(Date.now() / 1000);
const active = () => ({ active: true, token_type: 'Bearer', exp: nowSeconds() + 600 });

interface Scene {
  /** How often the authorization server was asked. */
  readonly questions: () => number;
  readonly check: (token?: string) => Promise<string>;
}

/** A guard with a cache, and an authorization server that answers what the test says. */
async function scene(
  t: Test,
  cache: { maximumAgeSeconds: number; maximumEntries?: number } | undefined,
  answer: (response: ServerResponse) => object | undefined | Promise<object> = active,
): Promise<Scene> {
  let questions = 0;
  const url = await listen(t, async (_request, response) => {
    questions++;
    const body = await answer(response);
    if (body === undefined) response.writeHead(503).end();
    else {
      response.writeHead(200, json).end(JSON.stringify(body));
    }
  });
  const guard = createTokenGuard({
    introspectionEndpoint: url,
    clientId: 'api',
    clientSecret: 'secret',
    ...(cache && { cache }),
  });
  t.teardown(() => guard.close());
  return {
    questions: () => questions,
    check: async (token = 'token') => (await guard.check({ headers: bearer(token) })).outcome,
  };
}

const json = { 'content-type': 'application/json' };

const wait = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

t.test('without a cache every request asks, also those that come together', async (t) => {
  const { check, questions } = await scene(t, undefined);
  await Promise.all(Array.from({ length: 10 }, () => check()));
  await check();
  t.equal(questions(), 11);
});

t.test('with a cache a token is asked about once in its time', async (t) => {
  const { check, questions } = await scene(t, { maximumAgeSeconds: 60 });
  t.strictSame(await Promise.all([check(), check(), check()]), ['granted', 'granted', 'granted']);
  t.equal(await check(), 'granted');
  t.equal(questions(), 1, 'requests that come together share a question');
  await check('another');
  t.equal(questions(), 2);
});

t.test('an answer is forgotten after its time', async (t) => {
  const { check, questions } = await scene(t, { maximumAgeSeconds: 0.3 });
  await check();
  await wait(400);
  await check();
  t.equal(questions(), 2);

  const slow = await scene(t, { maximumAgeSeconds: 0.3 }, async () => {
    await wait(400);
    return active();
  });
  await slow.check();
  await slow.check();
  t.equal(slow.questions(), 2, 'which begins with the question');
});

t.test('nobody joins a question that is older than an answer may be', async (t) => {
  const unanswered: (() => void)[] = [];
  const url = await listen(t, (_request, response) => {
    unanswered.push(() => response.writeHead(200, json).end(JSON.stringify(active())));
  });
  const guard = createTokenGuard({
    introspectionEndpoint: url,
    clientId: 'api',
    clientSecret: 'secret',
    timeoutSeconds: 60,
    cache: { maximumAgeSeconds: 2 },
  });
  t.teardown(() => guard.close());
  const check = () => guard.check({ headers: bearer('token') });
  const early = [check(), check()];
  while (unanswered.length === 0) await wait(10);
  await wait(2100);
  const late = [check(), check()];
  while (unanswered.length === 1) await wait(10);
  unanswered[0]?.();
  await Promise.all(early);
  late.push(check());
  await wait(100);
  for (const answer of unanswered.slice(1)) answer();
  const outcomes = (await Promise.all([...early, ...late])).map(({ outcome }) => outcome);
  t.strictSame(new Set(outcomes), new Set(['granted']));
  t.equal(unanswered.length, 2, 'the younger question goes on to be shared');
  await check();
  t.equal(unanswered.length, 2, 'the younger answer is remembered');
});

t.test('an answer does not outlive exp, by either clock', async (t) => {
  const dying = await scene(t, { maximumAgeSeconds: 60 }, () => ({
    ...active(),
    exp: nowSeconds(),
  }));
  await dying.check();
  await dying.check();
  t.equal(dying.questions(), 2, 'dead by this clock');

  const ahead = await scene(t, { maximumAgeSeconds: 60 }, (response) => {
    response.setHeader('date', new Date(Date.now() + 3_600_000).toUTCString());
    return active();
  });
  await ahead.check();
  await ahead.check();
  t.equal(ahead.questions(), 2, "dead by the authorization server's clock");

  const dyingAhead = await scene(t, { maximumAgeSeconds: 60 }, (response) => {
    const date = new Date(Date.now() + 3_600_000);
    response.setHeader('date', date.toUTCString());
    return { ...active(), exp: Math.floor(date.getTime() / 1000) + 2 };
  });
  await dyingAhead.check();
  await wait(1100);
  await dyingAhead.check();
  t.equal(dyingAhead.questions(), 2, "dead by then by the authorization server's clock");

  const odd = await scene(t, { maximumAgeSeconds: 60 }, () => ({ ...active(), exp: 'soon' }));
  await odd.check();
  await odd.check();
  t.equal(odd.questions(), 2, 'an exp that is no number');

  const eternal = await scene(t, { maximumAgeSeconds: 60 }, () => ({
    active: true,
    token_type: 'Bearer',
  }));
  await eternal.check();
  await eternal.check();
  t.equal(eternal.questions(), 1, 'without exp its own time counts');

  const dateless = await scene(t, { maximumAgeSeconds: 60 }, (response) => {
    response.sendDate = false;
    return active();
  });
  await dateless.check();
  await dateless.check();
  t.equal(dateless.questions(), 1, "without a Date this machine's clock counts");
});

t.test('nor does one that is remembered over a suspension of the machine', async (t) => {
  const { check, questions } = await scene(t, { maximumAgeSeconds: 60 });
  await check();
  const { now } = Date;
  t.teardown(() => {
    Date.now = now;
  });
  Date.now = () => now() + 3_600_000;
  await check();
  t.equal(questions(), 2);
});

t.test('neither trouble nor an inactive token is remembered', async (t) => {
  const answers: (object | undefined)[] = [undefined, { active: false }, active()];
  const { check, questions } = await scene(t, { maximumAgeSeconds: 60 }, () => answers.shift());
  t.strictSame(
    [await check(), await check(), await check(), await check()],
    ['refused', 'refused', 'granted', 'granted'],
  );
  t.equal(questions(), 3);
});

t.test('the cache is bounded; the token unused for longest goes first', async (t) => {
  const { check, questions } = await scene(t, { maximumAgeSeconds: 60, maximumEntries: 2 });
  for (const token of ['a', 'b', 'a', 'c', 'a']) await check(token);
  t.equal(questions(), 3);
  await check('b');
  t.equal(questions(), 4);
});
