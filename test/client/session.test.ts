/** The token client over a real server, with its refresh token in the response. */
import t from 'tap';
import {
  createTokenClient,
  memoryRefreshTokenStore,
  SignedOutError,
  TokenRequestError,
  UnavailableError,
} from '../../src/client/client.ts';
import { ALICE_PASSWORD, createCast, introspect, revoke } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';
import {
  createNetwork,
  families,
  pause,
  registerReader,
  rejection,
  startClient,
} from './network.ts';

const server = await startServer(t, { isRateLimitOn: false });
const { c1, p1 } = await createCast(server);
const isActive = await registerReader(server);
const alice = { username: 'alice', password: ALICE_PASSWORD };

const generation = async () => (await families(server)).at(-1)?.generation;
t.test('a login gives a token that is kept and renewed', async (t) => {
  const client = startClient(t, server, { clientId: c1.id, clientSecret: c1.secret });
  t.equal(client.isSignedIn, false);
  await client.login({ ...alice, scope: ['read'], deviceLabel: 'a test' });
  t.equal(client.isSignedIn, true);
  const token = await client.accessToken();
  t.match((await introspect(server, c1, token)).body, { active: true, scope: 'read' });
  t.equal(await client.accessToken(), token, 'kept');
  t.equal(client.network.count('/token refresh_token'), 0);

  client.network.expiresInSeconds = 0;
  await client.login(alice);
  const first = await client.accessToken();
  const second = await client.accessToken();
  t.not(first, second, 'an expired one is renewed');
  t.ok(await isActive(second));
  t.equal(client.signedIn(), 1);
  t.strictSame(client.signedOut, []);
});

t.test('shortly before its end a token is renewed while it still serves', async (t) => {
  const client = startClient(t, server);
  client.network.expiresInSeconds = 2;
  await client.login(alice);
  const token = await client.accessToken();
  await pause(1600);
  t.equal(await client.accessToken(), token, 'nobody waits');
  await pause(200);
  t.not(await client.accessToken(), token);
  t.equal(await generation(), 1);
});

t.test('a renewal in advance that is refused is not repeated by every request', async (t) => {
  const client = startClient(t, server);
  client.network.expiresInSeconds = 8;
  await client.login(alice);
  const token = await client.accessToken();
  client.network.loss = () => new Response('not here', { status: 404 });
  await pause(6200);
  for (let n = 0; n < 20; n++) {
    t.equal(await client.accessToken(), token);
    await pause(10);
  }
  t.equal(client.network.count('/token refresh_token'), 1);
  client.network.loss = () => undefined;
  await pause(1800);
  t.not(await client.accessToken(), token, 'but when it has expired the next one is asked for');
});

t.test('any number of callers cause one refresh', async (t) => {
  const client = startClient(t, server);
  client.network.expiresInSeconds = 0;
  await client.login(alice);
  client.network.expiresInSeconds = 60;
  const tokens = await Promise.all(Array.from({ length: 20 }, () => client.accessToken()));
  t.equal(new Set(tokens).size, 1);
  t.equal(client.network.count('/token refresh_token'), 1);
  t.equal(await generation(), 1);
});

t.test('a lost response is asked for again with the same token, and gives the same', async (t) => {
  const client = startClient(t, server);
  client.network.expiresInSeconds = 0;
  await client.login(alice);
  client.network.expiresInSeconds = 60;
  client.network.loss = () => (client.network.sent.length <= 3 ? 'after' : undefined);
  t.ok(await isActive(await client.accessToken()));
  const shown = client.network.sent.slice(1).map(({ body }) => body.get('refresh_token'));
  t.equal(shown.length, 3);
  t.equal(new Set(shown).size, 1);
  t.equal(await generation(), 1, 'one successor');
  t.strictSame(client.signedOut, []);
});

t.test('trouble is waited for, and signs nobody out', async (t) => {
  const unavailable = (status: number, retryAfter?: string) =>
    new Response('{"error":"temporarily_unavailable"}', {
      status,
      ...(retryAfter && { headers: { 'retry-after': retryAfter } }),
    });
  const troubles = [
    () => unavailable(503),
    () => unavailable(500),
    () => unavailable(502),
    () => unavailable(429),
    () => unavailable(408),
    () => new Response('<p>portal</p>', { status: 200 }),
    () => new Response('{"access_token":', { status: 200 }),
    () => Response.json({ access_token: 'x', token_type: 'mac', expires_in: 9 }),
    () => 'before' as const,
    () => 'after' as const,
  ];
  for (const trouble of troubles) {
    const client = startClient(t, server);
    client.network.expiresInSeconds = 0;
    await client.login(alice);
    client.network.expiresInSeconds = 60;
    client.network.loss = () => (client.network.sent.length === 2 ? trouble() : undefined);
    t.ok(await isActive(await client.accessToken()), String(trouble));
    t.equal(client.network.count('/token refresh_token'), 2);
    t.strictSame(client.signedOut, []);
  }
});

t.test('Retry-After is the least that is waited', async (t) => {
  const client = startClient(t, server);
  client.network.expiresInSeconds = 0;
  await client.login(alice);
  const askedAt: number[] = [];
  client.network.loss = () => {
    askedAt.push(performance.now());
    return askedAt.length === 1
      ? new Response('', { status: 503, headers: { 'retry-after': '1' } })
      : undefined;
  };
  await client.accessToken();
  t.ok(Number(askedAt[1]) - Number(askedAt[0]) >= 1000);
});

t.test('a server that is busy is told from one that is gone', async (t) => {
  const client = startClient(t, server);
  const headers = { 'retry-after': '60' };
  client.network.loss = () => new Response('', { status: 429, headers });
  t.match(await rejection(client.login(alice)), {
    message: 'The authorization server asks to try again later.',
    retryAfterSeconds: 60,
  });
  client.network.loss = () => 'before';
  t.match(await rejection(client.login(alice)), {
    message: 'The authorization server does not answer.',
  });
});

t.test('a logout that is refused is no success', async (t) => {
  const client = startClient(t, server);
  await client.login(alice);
  client.network.loss = () => Response.json({ error: 'invalid_client' }, { status: 401 });
  t.match(await rejection(client.logout()), { code: 'invalid_client' });
});

t.test('patience ends, and the session does not', async (t) => {
  const client = startClient(t, server, { patienceSeconds: 0.5 });
  client.network.expiresInSeconds = 0;
  await client.login(alice);
  client.network.loss = () => 'before';
  t.type(await rejection(client.accessToken()), UnavailableError);
  t.ok(client.isSignedIn);
  client.network.loss = () => undefined;
  t.ok(await isActive(await client.accessToken()));
  t.strictSame(client.signedOut, []);
});

t.test('a server that does not answer is let go in time', async (t) => {
  const client = startClient(t, server, {
    requestTimeoutSeconds: 0.2,
    patienceSeconds: 0.3,
    fetch: (_input, init) =>
      new Promise((_resolve, reject) => {
        init?.signal?.addEventListener('abort', () => reject(init.signal?.reason));
      }),
  });
  t.type(await rejection(client.login(alice)), UnavailableError);
});

t.test('only invalid_grant ends a session', async (t) => {
  const answers: [number, string | undefined][] = [
    [400, 'invalid_request'],
    [400, 'invalid_scope'],
    [400, 'unauthorized_client'],
    [400, undefined],
    [401, 'invalid_client'],
    [403, 'access_denied'],
    [404, 'not_found'],
    [413, 'invalid_request'],
  ];
  const client = startClient(t, server);
  client.network.expiresInSeconds = 0;
  await client.login(alice);
  for (const [status, error] of answers) {
    client.network.loss = () => Response.json({ error }, { status });
    const refused = await rejection(client.accessToken());
    t.match(refused, { name: 'TokenRequestError', status, code: error }, `${status} ${error}`);
    t.ok(client.isSignedIn);
  }
  client.network.loss = () => undefined;
  t.ok(await isActive(await client.accessToken()));
  t.strictSame(client.signedOut, []);
});

t.test('a session that was revoked is over, and the app is told once', async (t) => {
  const store = memoryRefreshTokenStore();
  const client = startClient(t, server, { refreshTokenStore: store });
  client.network.expiresInSeconds = 0;
  await client.login(alice);
  await revoke(server, p1, (await store.load()) as string);
  const refused = await Promise.all([1, 2, 3].map(() => rejection(client.accessToken())));
  for (const error of refused) t.type(error, SignedOutError);
  t.type(await rejection(client.accessToken()), SignedOutError);
  await pause(10);
  t.strictSame(client.signedOut, ['ended']);
  t.equal(client.isSignedIn, false);
  t.equal(await store.load(), undefined, 'a dead token is not kept');
  t.equal(await client.resume(), false);
  await client.login(alice);
  t.ok(client.isSignedIn);
});

t.test('a wrong password is a refusal, and nobody was signed out', async (t) => {
  const client = startClient(t, server);
  const refused = await rejection(client.login({ ...alice, password: 'not it, not at all' }));
  t.type(refused, TokenRequestError);
  t.match(refused, { code: 'invalid_grant', status: 400 });
  t.strictSame(client.signedOut, []);
  t.notMatch(String((refused as Error).stack), /not it/);
});

t.test('a session is taken up from the store', async (t) => {
  const store = memoryRefreshTokenStore();
  await startClient(t, server, { refreshTokenStore: store }).login(alice);
  const another = startClient(t, server, { refreshTokenStore: store });
  t.equal(another.isSignedIn, false);
  t.equal(await another.resume(), true);
  t.ok(await isActive(await another.accessToken()));
  const implicit = startClient(t, server, { refreshTokenStore: store });
  t.ok(await isActive(await implicit.accessToken()), 'or when a token is first asked for');
  const empty = startClient(t, server);
  t.equal(await empty.resume(), false);
  t.equal(empty.network.sent.length, 0);
  t.strictSame(empty.signedOut, [], 'nobody was signed in');
});

t.test('a new refresh token is saved before its access token is used', async (t) => {
  const store = memoryRefreshTokenStore();
  let isDiskFull = false;
  const client = startClient(t, server, {
    refreshTokenStore: {
      ...store,
      save: (token) => (isDiskFull ? Promise.reject(new Error('disk full')) : store.save(token)),
    },
  });
  client.network.expiresInSeconds = 0;
  await client.login(alice);
  const before = await store.load();
  isDiskFull = true;
  t.match(await rejection(client.accessToken()), { message: 'disk full' });
  t.equal(await store.load(), before, 'the one before is still there');
  isDiskFull = false;
  t.ok(await isActive(await client.accessToken()), 'and is good for a retry');
  t.equal(await generation(), 1, 'which gave the same successor');
  t.not(await store.load(), before);
});

t.test('logout ends the session here and at the server', async (t) => {
  const store = memoryRefreshTokenStore();
  const client = startClient(t, server, { refreshTokenStore: store });
  await client.login(alice);
  const token = await client.accessToken();
  await client.logout();
  t.equal(await isActive(token), false);
  t.equal(await store.load(), undefined);
  t.type(await rejection(client.accessToken()), SignedOutError);
  t.strictSame(client.signedOut, ['logout']);
  await client.logout();
  t.equal(client.network.count('/revoke'), 1, 'nothing is left to end');
});

t.test('a logout that the server has not confirmed says so, and can be repeated', async (t) => {
  const store = memoryRefreshTokenStore();
  const client = startClient(t, server, { refreshTokenStore: store, patienceSeconds: 0.3 });
  await client.login(alice);
  const token = await client.accessToken();
  client.network.loss = () => 'before';
  t.type(await rejection(client.logout()), UnavailableError);
  t.equal(client.isSignedIn, false);
  client.network.loss = () => undefined;
  await client.logout();
  t.equal(await isActive(token), false);
});

t.test('options that do not fit together are refused', async (t) => {
  const common = { authorizationServer: server.url, clientId: 'web', apiOrigins: [] };
  const cookie = { ...common, delivery: 'cookie' as const };
  t.throws(() => createTokenClient({ ...cookie, clientSecret: 'x' }), TypeError);
  t.throws(
    () => createTokenClient({ ...cookie, refreshTokenStore: memoryRefreshTokenStore() }),
    TypeError,
  );
  t.throws(() => createTokenClient({ ...common, delivery: 'body', apiOrigins: ['x'] }), TypeError);
  for (const origin of ['localhost:3000', 'app://page', 'file:///page']) {
    const body = { ...common, delivery: 'body' as const, apiOrigins: [origin] };
    t.throws(() => createTokenClient(body), TypeError, origin);
  }
  t.throws(() => createTokenClient({ ...cookie, authorizationServer: 'x' }), TypeError);
});

t.test('no error repeats a token, a password or what a server wrote', async (t) => {
  const network = createNetwork();
  const client = startClient(t, server, {}, network);
  network.expiresInSeconds = 0;
  await client.login(alice);
  network.loss = ({ body }) =>
    Response.json({ error: `bad ${body.get('refresh_token')}` }, { status: 400 });
  const error = (await rejection(client.accessToken())) as Error;
  t.notMatch(`${error.stack} ${JSON.stringify(error)}`, /hrt_|hat_/);
});

t.test(
  'a runtime without all of fetch, or a senseless address, is told at once and as what it is',
  async (t) => {
    let sent = 0;
    const fetch: typeof globalThis.fetch = async () => {
      sent++;
      throw new TypeError('fetch failed');
    };
    const refreshTokenStore = {
      load: async () => 'hrt_kept',
      save: async () => {},
      clear: async () => void t.fail('the session goes on'),
    };
    const trouble = (authorizationServer: string) =>
      rejection(startClient(t, server, { authorizationServer, fetch, refreshTokenStore }).resume());

    t.match(await trouble('auth.example'), { name: 'TypeError', message: /URL/ });
    // Cloudflare Workers know no redirect 'error'.
    const restore = t.intercept(globalThis, 'Request', {
      value: class {
        constructor(_url: string, { redirect }: RequestInit) {
          throw new TypeError(`Invalid redirect value ${redirect}`);
        }
      },
    });
    const error = await trouble('https://auth.example');
    restore.restore();
    t.match(error, { name: 'TypeError', message: 'Invalid redirect value error' });
    t.equal(sent, 0);
  },
);
