/** What a login, a refresh and a logout come to when another of them is under way. */
import t from 'tap';
import { memoryRefreshTokenStore, SignedOutError } from '../../src/client/client.ts';
import { ALICE_PASSWORD, createCast } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';
import {
  createNetwork,
  families,
  pause,
  registerReader,
  rejection,
  startClient,
  type TestClient,
} from './network.ts';

const server = await startServer(t, { isRateLimitOn: false });
await createCast(server);
const isActive = await registerReader(server);
const alice = { username: 'alice', password: ALICE_PASSWORD };

t.test('a store that is slow to say that it is empty does not end the login since', async (t) => {
  const store = memoryRefreshTokenStore();
  const { promise: later, resolve: release } = Promise.withResolvers<void>();
  const client = startClient(t, server, {
    refreshTokenStore: {
      ...store,
      async load() {
        const kept = await store.load();
        await later;
        return kept;
      },
    },
  });
  const resumed = client.resume();
  await client.login(alice);
  release();
  t.strictSame([await resumed, client.isSignedIn], [true, true]);
  t.type(await store.load(), 'string');
});

t.test('an answer that comes after the logout signs nobody in', async (t) => {
  const store = memoryRefreshTokenStore();
  const client = startClient(t, server, { refreshTokenStore: store });
  client.network.expiresInSeconds = 0;
  await client.login(alice);
  const { promise: held, resolve: release } = Promise.withResolvers<undefined>();
  client.network.loss = ({ what }) => (what.endsWith('refresh_token') ? held : undefined);
  const asked = rejection(client.accessToken());
  await pause(20);
  await client.logout();
  release(undefined);
  t.type(await asked, SignedOutError);
  t.equal(client.isSignedIn, false);
  t.equal(await store.load(), undefined);
});

t.test('a refresh of before a logout neither goes on nor delays the next login', async (t) => {
  const client = startClient(t, server);
  client.network.expiresInSeconds = 0;
  await client.login(alice);
  const { promise: held, resolve: release } = Promise.withResolvers<'before'>();
  client.network.loss = ({ what }) => (what.endsWith('refresh_token') ? held : undefined);
  const asked = rejection(client.accessToken());
  await pause(20);
  await client.logout();
  await client.login(alice);
  client.network.expiresInSeconds = 60;
  const { promise: answered, resolve: answer } = Promise.withResolvers<undefined>();
  client.network.loss = () => answered;
  const next = client.accessToken();
  await pause(100);
  t.equal(client.network.count('/token refresh_token'), 2, 'one for each session');
  release('before');
  t.type(await asked, SignedOutError);
  const another = client.accessToken();
  answer(undefined);
  t.ok(await isActive(await next));
  t.equal(await another, await next, 'which all who want a token share');
  t.equal(client.network.count('/token refresh_token'), 2, 'the lost one is not sent again');
  t.ok(client.isSignedIn);
});

t.test('a logout touches only the session that it was called for', async (t) => {
  const store = memoryRefreshTokenStore();
  const client = startClient(t, server, { refreshTokenStore: store });
  await client.login(alice);
  const token = await client.accessToken();
  client.network.loss = () => (client.network.count('/revoke') === 1 ? 'before' : undefined);
  const logout = client.logout();
  await client.login(alice);
  await logout;
  t.equal(await isActive(token), false);
  t.ok(await isActive(await client.accessToken()));
  t.type(await store.load(), 'string', 'the token of the later login is kept');
});

t.test('a store that is slow at times keeps the token of the last login', async (t) => {
  const store = memoryRefreshTokenStore();
  let isSlow = false;
  const client = startClient(t, server, {
    refreshTokenStore: {
      ...store,
      async save(token) {
        if (isSlow) {
          isSlow = false;
          await pause(200);
        }
        await store.save(token);
      },
    },
  });
  client.network.expiresInSeconds = 0;
  await client.login(alice);
  isSlow = true;
  const renewed = rejection(client.accessToken());
  while (isSlow) await pause(5);
  await client.login(alice);
  const kept = await store.load();
  await renewed;
  await pause(250);
  t.equal(await store.load(), kept);
});

t.test('a store that is slow to clear keeps the token of the login since', async (t) => {
  const store = memoryRefreshTokenStore();
  const endings: Record<string, (client: TestClient) => Promise<unknown>> = {
    'after a logout': (client) => client.logout(),
    'after the end of a session': async (client) => client.resume(),
  };
  for (const [when, end] of Object.entries(endings)) {
    let isClearing = false;
    const { promise: later, resolve: release } = Promise.withResolvers<void>();
    const client = startClient(t, server, {
      refreshTokenStore: {
        ...store,
        async clear() {
          isClearing = true;
          await later;
          await store.clear();
        },
      },
    });
    await store.save('hrt_unknown');
    const ended = end(client);
    while (!isClearing) await pause(5);
    const login = client.login(alice);
    await Promise.race([login, pause(200)]);
    release();
    await Promise.all([ended, login]);
    t.type(await store.load(), 'string', when);
    t.ok(client.isSignedIn, when);
  }
});

t.test('a refresh whose token is being saved at the logout signs nobody in', async (t) => {
  const store = memoryRefreshTokenStore();
  let whileSaving = async () => {};
  const client = startClient(t, server, {
    refreshTokenStore: {
      ...store,
      async save(token) {
        await whileSaving();
        await store.save(token);
      },
    },
  });
  client.network.expiresInSeconds = 0;
  await client.login(alice);
  client.network.expiresInSeconds = 60;
  whileSaving = () => client.logout();
  t.type(await rejection(client.accessToken()), SignedOutError);
  t.equal(client.isSignedIn, false);
  t.match((await families(server)).at(-1), { revocation_reason: 'revoked' });
});

t.test('of two logins at once the app is told of the later one only', async (t) => {
  const network = createNetwork();
  network.expiresInSeconds = 60;
  let answered = 0;
  const { promise: later, resolve: release } = Promise.withResolvers<void>();
  const told: Promise<string>[] = [];
  const client: TestClient = startClient(t, server, {
    async fetch(input, init) {
      const response = await network.fetch(input, init);
      answered++;
      return response;
    },
    refreshTokenStore: {
      ...memoryRefreshTokenStore(),
      async save() {
        await later;
        await pause(50);
      },
    },
    onSignedIn: () => told.push(client.accessToken()),
  });
  const logins: Promise<void>[] = [];
  for (const count of [1, 2]) {
    logins.push(client.login(alice));
    while (answered < count) await pause(5);
    await pause(50);
  }
  release();
  await Promise.all(logins);
  t.strictSame(await Promise.all(told), [await client.accessToken()]);
});

t.test('a login does not survive a logout that was called meanwhile', async (t) => {
  const store = memoryRefreshTokenStore();
  const calledOff = async (client: TestClient) => {
    t.type(await rejection(client.login(alice)), SignedOutError);
    t.equal(client.isSignedIn, false);
    t.equal(await store.load(), undefined);
    t.match((await families(server)).at(-1), { revocation_reason: 'revoked' });
  };
  const asking = startClient(t, server, { refreshTokenStore: store });
  asking.network.loss = async ({ what }) => {
    if (what.endsWith('password')) await asking.logout();
    return undefined;
  };
  await calledOff(asking);
  const saving: TestClient = startClient(t, server, {
    refreshTokenStore: {
      ...store,
      async save(token) {
        await saving.logout();
        await store.save(token);
      },
    },
  });
  await calledOff(saving);
  t.strictSame([...asking.signedOut, ...saving.signedOut], [], 'nobody was signed in');
});

t.test('a login that a logout has overtaken leaves the next login alone', async (t) => {
  const store = memoryRefreshTokenStore();
  const client = startClient(t, server, { refreshTokenStore: store });
  client.network.loss = async ({ what }) => {
    if (!what.endsWith('password')) return undefined;
    client.network.loss = () => undefined;
    await client.logout();
    await client.login(alice);
    return undefined;
  };
  t.type(await rejection(client.login(alice)), SignedOutError);
  t.ok(await isActive(await client.accessToken()));
  t.type(await store.load(), 'string');
});
