/**
 * Several tabs of one app in cookie mode: one cookie jar, one real server, and between the tabs the Web
 * Locks and BroadcastChannel of the platform, which Node has as browsers have them.
 */
import t, { type Test } from 'tap';
import { SignedOutError } from '../../src/client/client.ts';
import { cookieNameOf } from '../support/browser.ts';
import { ALICE_PASSWORD, createCast } from '../support/fixtures.ts';
import { matchEach } from '../support/match.ts';
import { startServer, type TestServer } from '../support/server.ts';
import {
  createNetwork,
  families,
  type Network,
  pause,
  registerApp,
  registerReader,
  rejection,
  startClient,
  type TestClient,
} from './network.ts';

const alice = { username: 'alice', password: ALICE_PASSWORD };
const dave = { username: 'dave', password: 'a phrase that only dave knows' };

interface Browser {
  readonly server: TestServer;
  readonly network: Network;
  readonly tab: () => TestClient;
  readonly isActive: (token: string) => Promise<boolean>;
}

/** A browser with a server of its own: the names of channels and locks are made of the server's. */
async function startBrowser(t: Test): Promise<Browser> {
  const server = await startServer(t, { isRateLimitOn: false });
  await createCast(server);
  await server.dependencies.resourceOwners.create(dave.username, dave.password);
  await registerApp(server);
  const isActive = await registerReader(server);
  const network = createNetwork();
  return {
    server,
    network,
    tab: () => startClient(t, server, { delivery: 'cookie' }, network),
    isActive,
  };
}

/** What the tabs of the app call their channel and their lock. */
const channelOf = ({ url }: TestServer) => `heirloom ${url}/ web`;

/** Lets messages arrive. */
const settle = () => pause(30);

t.test('the script never sees the refresh token', async (t) => {
  const { network, tab } = await startBrowser(t);
  const one = tab();
  await one.login(alice);
  t.match(network.cookies.get(cookieNameOf('web')), /^hrt_/);
  for (const { body, headers } of network.sent) {
    t.equal(headers.get('x-heirloom-csrf'), '1');
    t.equal(body.get('client_id'), 'web');
  }
  network.expiresInSeconds = 0;
  await one.login(alice);
  await one.accessToken();
  t.equal(network.sent.at(-1)?.body.get('refresh_token'), null);
});

t.test('tabs that refresh at once get one successor, and all go on', async (t) => {
  const { server, network, tab, isActive } = await startBrowser(t);
  const tabs = [tab(), tab(), tab()];
  network.expiresInSeconds = 1;
  await tabs[0]?.login(alice);
  await settle();
  t.strictSame(
    tabs.map(({ isSignedIn }) => isSignedIn),
    [true, true, true],
    'a login in one signs in the others',
  );
  await pause(1000);
  network.expiresInSeconds = 60;
  const tokens = await Promise.all(tabs.map((each) => each.accessToken()));
  t.equal(new Set(tokens).size, 1);
  t.ok(await isActive(tokens[0] as string));
  t.equal(network.count('/token refresh_token'), 1);
  matchEach(t, await families(server), [{ generation: 1, revocation_reason: null }]);
  for (const { signedOut } of tabs) t.strictSame(signedOut, []);
});

t.test('tabs that cannot see each other get one successor all the same', async (t) => {
  const { server, network, tab, isActive } = await startBrowser(t);
  const { BroadcastChannel: channel } = globalThis;
  t.teardown(() => {
    globalThis.BroadcastChannel = channel;
  });
  Reflect.deleteProperty(globalThis, 'BroadcastChannel');
  const [one, two] = [tab(), tab()];
  network.expiresInSeconds = 0;
  await one.login(alice);
  network.expiresInSeconds = 60;
  let arrived = 0;
  const { promise: both, resolve: release } = Promise.withResolvers<undefined>();
  // Both have read the cookie before either answer changes it.
  network.loss = () => {
    arrived++;
    if (arrived === 2) release(undefined);
    return both;
  };
  const tokens = await Promise.all([one.accessToken(), two.accessToken()]);
  t.equal(new Set(tokens).size, 1, 'thanks to the retry window');
  t.ok(await isActive(tokens[0] as string));
  matchEach(t, await families(server), [{ generation: 1, revocation_reason: null }]);
});

t.test('a page that is loaded gets the token of another tab, or one for the cookie', async (t) => {
  const { server, network, tab, isActive } = await startBrowser(t);
  const one = tab();
  await one.login(alice);
  const two = tab();
  t.equal(await two.resume(), true);
  t.equal(await two.accessToken(), await one.accessToken());
  t.equal(network.count('/token refresh_token'), 0);
  one.close();
  two.close();
  const reloaded = tab();
  t.equal(await reloaded.resume(), true);
  t.ok(await isActive(await reloaded.accessToken()));
  matchEach(t, await families(server), [{ generation: 1 }]);
});

t.test('a token that an API has refused is not taken back from another tab', async (t) => {
  const { server, network } = await startBrowser(t);
  const api = 'http://api.example';
  const one = startClient(t, server, { delivery: 'cookie', apiOrigins: [api] }, network);
  await one.login(alice);
  const refused = await one.accessToken();
  const other = new BroadcastChannel(channelOf(server));
  t.teardown(() => other.close());
  // By its clock the token lives longer.
  other.onmessage = () => {
    const token = { text: refused, lifeMilliseconds: 10_000_000 };
    other.postMessage({ kind: 'token', token, sentAt: Date.now() });
  };
  network.loss = ({ what, headers }) => {
    if (what !== '/notes') return undefined;
    const status = headers.get('authorization') === `Bearer ${refused}` ? 401 : 200;
    return new Response('', { status });
  };
  t.equal((await one.fetch(`${api}/notes`)).status, 200);
  t.not(await one.accessToken(), refused);
  t.equal(network.count('/token refresh_token'), 1);
});

t.test('without a cookie nobody is signed in, and no tab was signed out', async (t) => {
  const { tab } = await startBrowser(t);
  const one = tab();
  t.equal(await one.resume(), false);
  t.strictSame(one.signedOut, []);
  await one.login(alice);
  t.ok(one.isSignedIn);
});

t.test('a response that is lost with its cookie is asked for again', async (t) => {
  const { server, network, tab, isActive } = await startBrowser(t);
  const one = tab();
  network.expiresInSeconds = 0;
  await one.login(alice);
  network.expiresInSeconds = 60;
  network.loss = () => (network.count('/token refresh_token') <= 2 ? 'after' : undefined);
  t.ok(await isActive(await one.accessToken()));
  t.equal(network.count('/token refresh_token'), 3);
  matchEach(t, await families(server), [{ generation: 1, revocation_reason: null }]);
});

t.test('a logout signs out every tab, and none comes back by itself', async (t) => {
  const { server, network, tab, isActive } = await startBrowser(t);
  const [one, two] = [tab(), tab()];
  await one.login(alice);
  await settle();
  const token = await two.accessToken();
  await one.logout();
  await settle();
  t.equal(await isActive(token), false);
  t.strictSame(network.cookies, new Map());
  t.strictSame([one.signedOut, two.signedOut], [['logout'], ['logout']]);
  t.type(await rejection(two.accessToken()), SignedOutError);
  t.equal(await two.resume(), false);
  matchEach(t, await families(server), [{ revocation_reason: 'revoked' }]);
  await one.logout();
  t.pass('without a cookie there is nothing left to end');
});

t.test('a login waits for the logout before it, which leaves its cookie alone', async (t) => {
  const { server, network, tab, isActive } = await startBrowser(t);
  const one = tab();
  await one.login(alice);
  const token = await one.accessToken();
  network.loss = () => (network.count('/revoke') === 1 ? 'before' : undefined);
  const logout = one.logout();
  await one.login(dave);
  await logout;
  t.equal(await isActive(token), false);
  t.ok(await isActive(await one.accessToken()));
  t.match(network.cookies.get(cookieNameOf('web')), /^hrt_/);
  matchEach(t, await families(server), [
    { revocation_reason: 'revoked' },
    { revocation_reason: null },
  ]);
});

t.test('a logout stops repeating itself once there is a later login', async (t) => {
  const { network, tab, isActive } = await startBrowser(t);
  const { locks } = navigator;
  t.teardown(() => Object.defineProperty(navigator, 'locks', { value: locks }));
  // As on a page over plain HTTP, or when waiting for the lock has taken too long.
  Object.defineProperty(navigator, 'locks', { value: undefined, configurable: true });
  const one = tab();
  await one.login(alice);
  network.loss = ({ what }) => (what === '/revoke' ? 'before' : undefined);
  const logout = one.logout();
  await settle();
  await one.login(dave);
  network.loss = () => undefined;
  await logout;
  t.ok(await isActive(await one.accessToken()));
  t.equal(network.count('/revoke'), 1);
});

t.test('a login does not survive a logout that was called meanwhile in any tab', async (t) => {
  const { server, network, tab } = await startBrowser(t);
  const [one, two] = [tab(), tab()];
  for (const other of [one, two]) {
    let logout: Promise<void> | undefined;
    network.loss = async ({ what }) => {
      if (what.endsWith('password')) logout = other.logout();
      await settle();
      return undefined;
    };
    t.type(await rejection(one.login(alice)), SignedOutError);
    await logout;
    t.strictSame([one.isSignedIn, two.isSignedIn], [false, false]);
    t.strictSame(network.cookies, new Map());
    t.match((await families(server)).at(-1), { revocation_reason: 'revoked' });
  }
});

t.test('tabs that log out at once end the session all the same', async (t) => {
  const { network, tab, isActive } = await startBrowser(t);
  const [one, two] = [tab(), tab()];
  await one.login(alice);
  await settle();
  const token = await two.accessToken();
  await Promise.all([one.logout(), two.logout()]);
  t.equal(await isActive(token), false);
  t.strictSame(network.cookies, new Map());
});

t.test('a login as somebody else ends what other tabs show', async (t) => {
  const { network, tab } = await startBrowser(t);
  const [one, two] = [tab(), tab()];
  await one.login(alice);
  await settle();
  await two.login(dave);
  await settle();
  t.strictSame(one.signedOut, ['other-login']);
  t.ok(two.isSignedIn);
  t.equal(await one.resume(), true, 'loaded anew, the tab goes on as the one who is signed in');
  t.equal(await one.accessToken(), await two.accessToken());
  t.equal(network.count('/token refresh_token'), 0);
});

t.test('a tab that missed another login notices when it refreshes', async (t) => {
  const { network, tab } = await startBrowser(t);
  const one = tab();
  network.expiresInSeconds = 0;
  await one.login(alice);
  one.close();
  const two = tab();
  await two.login(dave);
  two.close();
  t.type(await rejection(one.accessToken()), SignedOutError);
  t.strictSame(one.signedOut, ['other-login']);
});

t.test('a session that ends is over in every tab', async (t) => {
  const { server, network, tab } = await startBrowser(t);
  const [one, two] = [tab(), tab()];
  network.expiresInSeconds = 0;
  await one.login(alice);
  await settle();
  await server.dependencies.sessions.revokeAll('alice');
  t.type(await rejection(one.accessToken()), SignedOutError);
  await settle();
  t.strictSame([one.signedOut, two.signedOut], [['ended'], ['ended']]);
  t.strictSame(network.cookies, new Map(), 'the dead cookie is gone too');
});

t.test('a login is not overtaken by the refresh of the session before it', async (t) => {
  const { network, tab, isActive } = await startBrowser(t);
  const [one, two] = [tab(), tab()];
  network.expiresInSeconds = 0;
  await one.login(alice);
  await settle();
  network.expiresInSeconds = 60;
  const { promise: held, resolve: release } = Promise.withResolvers<undefined>();
  network.loss = ({ what }) => (what.endsWith('refresh_token') ? held : undefined);
  const refreshed = rejection(one.accessToken());
  await settle();
  const login = two.login(dave);
  await pause(150);
  release(undefined);
  await Promise.all([refreshed, login]);
  await settle();
  const token = await two.accessToken();
  t.ok(await isActive(token));
  two.close();
  one.close();
  const reloaded = tab();
  t.equal(await reloaded.resume(), true);
  const tokens = [token, await reloaded.accessToken()].map((each) => each.slice(4, 20));
  t.equal(new Set(tokens).size, 1, 'the cookie is of the last login');
});

/** Node has no pages; what `window` would tell one that comes back from the back-forward cache. */
function createWindow(t: Test) {
  const window = new EventTarget();
  const { addEventListener, removeEventListener } = window;
  for (const [name, method] of Object.entries({ addEventListener, removeEventListener })) {
    Object.defineProperty(globalThis, name, { value: method.bind(window), configurable: true });
    t.teardown(() => Reflect.deleteProperty(globalThis, name));
  }
  return {
    show: (persisted: boolean) =>
      window.dispatchEvent(Object.assign(new Event('pageshow'), { persisted })),
  };
}

t.test('a page that comes back after a logout it was not told of is signed out', async (t) => {
  const window = createWindow(t);
  const { server, network, tab } = await startBrowser(t);
  const page = tab();
  await page.login(alice);
  window.show(false);
  await pause(200);
  t.equal(network.count('/token refresh_token'), 0, 'a page that is loaded has missed nothing');
  window.show(true);
  await pause(300);
  t.equal(page.isSignedIn, true, 'while the session goes on, so does the page');
  const headers = { 'x-heirloom-csrf': '1', 'content-type': 'application/x-www-form-urlencoded' };
  // The tab that logs out cannot reach a page that is frozen.
  await network.fetch(`${server.url}/revoke`, {
    method: 'POST',
    headers,
    body: 'client_id=web',
    credentials: 'include',
  });
  t.equal(page.isSignedIn, true);
  window.show(true);
  await pause(300);
  t.strictSame(page.signedOut, ['ended'], 'without a request of the app');
  const asked = network.count('/token refresh_token');
  window.show(true);
  await pause(200);
  t.equal(network.count('/token refresh_token'), asked, 'nobody is signed in, nobody is asked');
  await page.login(alice);
  page.close();
  window.show(true);
  await pause(200);
  t.equal(network.count('/token refresh_token'), asked, 'a client that was closed asks no more');
});

t.test('a tab that holds the lock and never comes back stops nobody for long', async (t) => {
  const { server, tab, isActive } = await startBrowser(t);
  const one = tab();
  await one.login(alice);
  one.close();
  const name = channelOf(server);
  const { promise: released, resolve: release } = Promise.withResolvers<void>();
  const held = navigator.locks.request(name, () => released);
  await settle();
  const { held: locks = [] } = await navigator.locks.query();
  t.ok(locks.some((lock) => lock.name === name));
  const two = tab();
  t.ok(await isActive(await two.accessToken()));
  release();
  await held;
});
