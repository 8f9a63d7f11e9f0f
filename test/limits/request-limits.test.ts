/**
 * Limits on requests, whatever comes of them.
 *
 *   /token, /revoke            600 a second and network, before the body is read
 *   password                   30 a minute, client and network
 *   refresh_token              600 a minute and family, answered 503
 *   /revoke                    1,000 a minute and family
 *   both with anything else    as often, client and network
 */
import t, { type Test } from 'tap';
import { APP_ORIGIN } from '../support/browser.ts';
import { type Answer, basic, post, send } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import { ALICE_PASSWORD, createCast } from '../support/fixtures.ts';
import { matchEach } from '../support/match.ts';
import { needsRedis, startRedis } from '../support/redis.ts';
import { startServer, type TestServer, type TestServerOptions } from '../support/server.ts';

const repeat = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value);
const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

const HOME = '203.0.113.7';

/** As many requests as the count says, in small groups, each from the given address. */
async function statusesOf(
  count: number,
  ask: (n: number) => Promise<Answer>,
): Promise<Record<number, number>> {
  const statuses: Record<number, number> = {};
  for (let n = 0; n < count; n += 20) {
    const group = Array.from({ length: Math.min(20, count - n) }, (_, m) => ask(n + m));
    for (const { status } of await Promise.all(group)) {
      statuses[status] = (statuses[status] ?? 0) + 1;
    }
  }
  return statuses;
}

/** Spends the limit of logins by logins that need neither a hash nor a failure. */
const login = (server: TestServer, headers: Record<string, string>, clientId = 'P1') =>
  post(
    `${server.url}/token`,
    {
      grant_type: 'password',
      client_id: clientId,
      username: 'alice',
      password: ALICE_PASSWORD,
      scope: '"',
    },
    headers,
  );

async function startScene(t: Test, options: TestServerOptions = {}): Promise<TestServer> {
  const server = await startServer(t, { trustProxy: 1, ...options });
  if (options.database === undefined) await createCast(server);
  return server;
}

t.test(
  'logins of one client and network have a limit, of which nobody else has less',
  async (t) => {
    const server = await startScene(t);
    const from = { 'x-forwarded-for': HOME };
    t.strictSame(await statusesOf(35, () => login(server, from)), { 400: 30, 429: 5 });
    const refused = await login(server, from);
    t.strictSame(refused.body, { error: 'temporarily_unavailable' });
    const line = server.logs.find((each) => each.includes('rate_limited')) ?? '{}';
    t.match(JSON.parse(line), { outcome: 'refused', clientId: /./, address: HOME }, 'says whose');
    await pause(1100);
    await login(server, from);
    const lines = server.logs
      .map((each) => JSON.parse(each))
      .filter(({ event }) => event === 'rate_limited');
    const unwritten = lines.reduce((sum, each) => sum + each.unwritten, 0);
    t.equal(lines.length + unwritten, 7, 'and how many there were');
    const times = lines.map(({ time }) => Date.parse(time));
    const pauses = times.slice(1).map((time, index) => time - (times[index] as number));
    t.ok(pauses.length > 0 && pauses.every((pause) => pause > 900), 'a line a second');
    await server.dependencies.clients.create({
      clientId: 'P2',
      clientType: 'public',
      grantTypes: ['password'],
      scope: ['read'],
    });
    t.equal((await login(server, from, 'P2')).status, 400, 'another client');
    t.equal(
      (await login(server, { 'x-forwarded-for': '203.0.113.8' })).status,
      400,
      'another address',
    );
  },
);

t.test('too many refreshes are 503, which no client takes for the end of a session', async (t) => {
  const server = await startScene(t);
  const refresh = () =>
    post(`${server.url}/token`, {
      grant_type: 'refresh_token',
      client_id: 'P1',
      refresh_token: 'hrt_x',
    });
  t.strictSame(await statusesOf(400, refresh), { 400: 400 });
  // Below what a network may ask in a second.
  await pause(1100);
  t.strictSame(await statusesOf(210, refresh), { 400: 200, 503: 10 });
  const refused = await refresh();
  t.ok(Number(refused.headers.get('retry-after')) <= 15, 'a quarter of the retry window');
});

t.test('made-up tokens use up nothing of those that clients hold', async (t) => {
  const server = await startScene(t);
  const { clients } = server.dependencies;
  const settings = {
    clientType: 'public',
    grantTypes: ['password', 'refresh_token'],
    scope: ['read'],
  } as const;
  await clients.create({ ...settings, clientId: 'short', retryWindowSeconds: 4 });
  await clients.create({ ...settings, clientId: 'long', retryWindowSeconds: 300 });
  const ask = (path: string, parameters: Record<string, string>, clientId = 'short') =>
    post(`${server.url}${path}`, { client_id: clientId, ...parameters });
  const refresh = (refreshToken: string, clientId?: string) =>
    ask('/token', { grant_type: 'refresh_token', refresh_token: refreshToken }, clientId);
  const logIn = (clientId?: string) =>
    ask(
      '/token',
      { grant_type: 'password', username: 'alice', password: ALICE_PASSWORD },
      clientId,
    );
  const { refresh_token: ours } = (await logIn()).body;
  const { refresh_token: others } = (await logIn()).body;
  t.strictSame(await statusesOf(580, () => refresh('hrt_x')), { 400: 580 });
  await pause(1100);
  t.strictSame(await statusesOf(25, () => refresh('hrt_x')), { 400: 20, 503: 5 });
  const refused = await refresh('hrt_x');
  t.equal(refused.headers.get('retry-after'), '1', 'a quarter of the window of this client');

  const lost = (await refresh(ours)).body;
  t.equal((await refresh(ours)).body.refresh_token, lost.refresh_token, 'a retry is no replay');
  t.equal((await ask('/revoke', { token: ours })).status, 200);

  // What one family asks for is bounded all the same, and is its own affair.
  const { refresh_token: third } = (await logIn('long')).body;
  await pause(1100);
  t.strictSame(await statusesOf(590, () => refresh(third, 'long')), { 200: 590 });
  await pause(1100);
  const statuses = await statusesOf(20, () => refresh(third, 'long'));
  t.equal(statuses[503], 10);
  t.equal((await refresh(others)).status, 200);
});

t.test('RAT-08 ASVS 15.3.4: without a trusted proxy no header moves the bucket', async (t) => {
  const server = await startScene(t, { trustProxy: false });
  const statuses = await statusesOf(40, (n) =>
    login(server, {
      'x-forwarded-for': `192.0.2.${n}`,
      'x-real-ip': `192.0.2.${n}`,
      forwarded: `for=192.0.2.${n}`,
    }),
  );
  t.strictSame(statuses, { 400: 30, 429: 10 });
});

t.test('RAT-09 ASVS 15.3.4: behind one trusted hop only what it appended counts', async (t) => {
  const server = await startScene(t);
  const statuses = await statusesOf(40, (n) =>
    login(server, { 'x-forwarded-for': `192.0.2.${n}, ${HOME}` }),
  );
  t.strictSame(statuses, { 400: 30, 429: 10 });
});

t.test(
  'ports that a gateway adds to addresses do not put everybody into one network',
  async (t) => {
    const server = await startScene(t);
    const from = (address: string) => (n: number) =>
      login(server, { 'x-forwarded-for': address.replace('PORT', `${50_000 + n}`) });
    t.strictSame(await statusesOf(40, from(`${HOME}:PORT`)), { 400: 30, 429: 10 });
    t.equal((await from(HOME)(0)).status, 429, 'the same network as without a port');
    t.equal((await from('203.0.113.8:PORT')(0)).status, 400);
    t.strictSame(await statusesOf(40, from('[2001:db8:3:1::1]:PORT')), { 400: 30, 429: 10 });
    t.equal((await from('[2001:db8:3:1::2]')(0)).status, 429);
    t.equal((await from('2001:db8:3:2::1')(0)).status, 400);
    t.equal((await from('[2001:db8:3:2::1')(0)).status, 400, 'no address: the connection counts');
  },
);

t.test('an IPv6 /64 is one network for requests too', async (t) => {
  const server = await startScene(t);
  const statuses = await statusesOf(40, (n) =>
    login(server, { 'x-forwarded-for': `2001:db8:1:1::${n}` }),
  );
  t.strictSame(statuses, { 400: 30, 429: 10 });
  t.equal((await login(server, { 'x-forwarded-for': '2001:db8:1:2::1' })).status, 400);
});

t.test('RAT-13 draft-ietf-httpapi-ratelimit-headers: answers say what is left', async (t) => {
  const server = await startScene(t);
  const from = { 'x-forwarded-for': HOME };
  const first = await login(server, from);
  t.equal(first.headers.get('ratelimit-limit'), '600');
  t.match(first.headers.get('ratelimit-remaining'), /^\d+$/);
  t.match(first.headers.get('ratelimit-reset'), /^\d+$/);
  await statusesOf(29, () => login(server, from));
  const { headers } = await login(server, from);
  t.equal(headers.get('ratelimit-limit'), '30');
  t.equal(headers.get('ratelimit-remaining'), '0');
  t.ok(Number(headers.get('retry-after')) >= Number(headers.get('ratelimit-reset')));
  t.ok(Number(headers.get('retry-after')) >= 1);
});

t.test('RAT-15 usability: three hundred people behind one address notice nothing', async (t) => {
  const server = await startScene(t);
  const from = { 'x-forwarded-for': HOME };
  const issued = await post(
    `${server.url}/token`,
    { grant_type: 'password', client_id: 'P1', username: 'alice', password: ALICE_PASSWORD },
    from,
  );
  let { refresh_token: refreshToken } = issued.body;
  // What they cause in a minute: thirty refreshes and five logins, one of them mistyped.
  const answers: number[] = [];
  for (let n = 0; n < 30; n++) {
    const refreshed = await post(
      `${server.url}/token`,
      { grant_type: 'refresh_token', client_id: 'P1', refresh_token: refreshToken },
      from,
    );
    answers.push(refreshed.status);
    refreshToken = refreshed.body.refresh_token;
  }
  for (let n = 0; n < 5; n++) {
    const password = n === 0 ? 'mistyped, as happens' : ALICE_PASSWORD;
    const { status } = await post(
      `${server.url}/token`,
      { grant_type: 'password', client_id: 'P1', username: 'alice', password },
      from,
    );
    answers.push(status);
  }
  t.strictSame(answers, [...repeat(30, 200), 400, ...repeat(4, 200)]);
});

t.test('RAT-16 RFC 7662 §4: a resource server asks as often as it likes', async (t) => {
  const server = await startScene(t);
  const { clients } = server.dependencies;
  const { clientSecret } = await clients.create({
    clientId: 'api',
    clientType: 'confidential',
    introspectionRight: 'any',
  });
  const introspect = (secret: string) =>
    post(
      `${server.url}/introspect`,
      { token: 'x' },
      { ...basic('api', secret), 'x-forwarded-for': HOME },
    );
  t.strictSame(await statusesOf(25, () => introspect('wrong')), { 401: 20, 429: 5 });
  t.strictSame(await statusesOf(2500, () => introspect(clientSecret as string)), { 200: 2500 });
});

t.test('RAT-17 usability: preflights and metadata spend nothing', async (t) => {
  const server = await startScene(t);
  const from = { 'x-forwarded-for': HOME, origin: APP_ORIGIN };
  const preflight = () =>
    send(`${server.url}/token`, {
      method: 'OPTIONS',
      headers: { ...from, 'access-control-request-method': 'POST' },
    });
  t.strictSame(await statusesOf(700, preflight), { 204: 700 });
  const metadata = () =>
    send(`${server.url}/.well-known/oauth-authorization-server`, { headers: from });
  t.strictSame(await statusesOf(700, metadata), { 200: 700 });
  t.strictSame(await statusesOf(30, () => login(server, from)), { 400: 30 });
});

t.test('the limit before the body is read is one of a second', async (t) => {
  const server = await startScene(t);
  const ask = (from: string) =>
    fetch(`${server.url}/revoke`, {
      method: 'POST',
      headers: { 'x-forwarded-for': from, 'content-type': 'application/x-www-form-urlencoded' },
      body: 'client_id=P1',
    });
  const began = performance.now();
  const answers = await Promise.all(repeat(900, HOME).map(ask));
  const seconds = Math.ceil((performance.now() - began) / 1000);
  const passed = answers.filter(({ status }) => status !== 429).length;
  t.ok(passed <= 600 * (seconds + 1), `${passed} in ${seconds} s`);
  const refused = answers.find(({ status }) => status === 429);
  if (refused !== undefined) {
    t.strictSame(await refused.json(), { error: 'temporarily_unavailable' });
    t.equal(refused.headers.get('retry-after'), '1');
  }
  await pause(1100);
  t.equal((await ask(HOME)).status, 400);
});

t.test(
  'two instances share their limits through Redis, and go on without it',
  needsRedis,
  async (t) => {
    const redis = await startRedis(t);
    const database = await createTestDatabase(t);
    const one = await startScene(t, { database, redisUrl: redis.url });
    await createCast(one);
    const two = await startScene(t, { database, redisUrl: redis.url });
    const events = (...servers: TestServer[]) =>
      servers
        .flatMap(({ logs }) => logs.map((line) => JSON.parse(line).event))
        .filter((event) => String(event).startsWith('limits_'));
    /** Both connections are up once a count is shared. */
    const isShared = async (address: string) => {
      for (let n = 1; ; n++) {
        const from = { 'x-forwarded-for': `${address}.${n}` };
        await login(one, from);
        await login(two, from);
        const { headers } = await login(one, from);
        if (Number(headers.get('ratelimit-remaining')) === 597) return;
        await pause(100);
      }
    };
    const spend = (address: string) =>
      statusesOf(40, (n) => login(n % 2 ? one : two, { 'x-forwarded-for': address }));
    /** On a busy machine Redis misses its deadline now and then; what is counted alone then says nothing. */
    const spendShared = async (network: string) => {
      for (let n = 201; ; n++) {
        await isShared(network);
        const before = events(one, two).length;
        const statuses = await spend(`${network}.${n}`);
        if (events(one, two).length === before) return statuses;
      }
    };

    const together = { 400: 30, 429: 10 };
    t.strictSame(await spendShared('198.51.100'), together, 'thirty for both together');

    await redis.stop();
    const before = events(one).length;
    t.strictSame(await spend('192.0.2.2'), { 400: 40 }, 'twenty for each');
    t.strictSame(await spend('192.0.2.2'), { 400: 20, 429: 20 }, 'and not more than thirty');
    t.equal(events(one).length - before, 1, 'one line, not one per request');
    t.equal(events(one).at(-1), 'limits_local');

    await redis.start();
    t.strictSame(await spendShared('198.51.101'), together);
    t.equal(events(one).at(-1), 'limits_shared');

    redis.freeze();
    const { logs } = one;
    const linesBefore = logs.length;
    const answers = await Promise.all(
      repeat(20, 0).map(() => login(one, { 'x-forwarded-for': '192.0.2.4' })),
    );
    t.ok(
      answers.every(({ status }) => status === 400),
      'a Redis that is silent fails nobody',
    );
    t.ok(logs.length > linesBefore);
    redis.thaw();
    await isShared('198.51.102');
  },
);

t.test('a server starts without its Redis, and says what is wrong', needsRedis, async (t) => {
  const redis = await startRedis(t, 'the right password');
  const wrong = redis.url.replace('//', '//:a-wrong-password@');
  /** On a busy machine Redis misses its deadline before it has said anything; that is asked once more. */
  const linesOfLoss = async (redisUrl: string) => {
    for (;;) {
      const server = await startScene(t, { redisUrl });
      const from = { 'x-forwarded-for': HOME };
      t.strictSame(await statusesOf(35, () => login(server, from)), { 400: 30, 429: 5 });
      t.notMatch(server.logs.join(''), /a-wrong-password/);
      const lost = server.logs.map((line) => JSON.parse(line)).filter(isLimitsLocal);
      if (lost[0]?.reason !== 'Command timed out') return lost;
    }
  };
  for (const [redisUrl, reason] of [
    ['redis://127.0.0.1:1', /ECONNREFUSED/],
    [wrong, /WRONGPASS/],
    [redis.url, /NOAUTH/],
  ] as const) {
    matchEach(t, await linesOfLoss(redisUrl), [{ reason }]);
  }
});

const isLimitsLocal = ({ event }: { event?: string }) => event === 'limits_local';
