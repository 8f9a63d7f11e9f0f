/** What a tab makes of the messages of others. The authorization server is made up, and so are they. */
import t, { type Test } from 'tap';
import {
  createTokenClient,
  SignedOutError,
  type SignOutReason,
  UnavailableError,
} from '../../src/client/client.ts';
import { matchEach } from '../support/match.ts';
import { pause, rejection } from './network.ts';

/** Access tokens of two logins; the ends differ. */
const tokenOf = (login: string, end: string) => `hat_${login.repeat(21)}${end.repeat(20)}`;
const [first, second, foreign] = [tokenOf('a', 'A'), tokenOf('a', 'B'), tokenOf('b', 'A')];

const HOUR = 3_600_000;
const settle = () => pause(30);

interface Shared {
  readonly text: string;
  readonly lifeMilliseconds: number;
}

type Message =
  | { readonly kind: 'question' }
  | { readonly kind: 'token' | 'login'; readonly token: Shared; readonly sentAt: number }
  | { readonly kind: 'signed-out'; readonly reason: SignOutReason };

let apps = 0;

/** A tab, and another one that says only what the test says. */
function scene(t: Test, expiresInSeconds = 3600) {
  const clientId = `app-${apps++}`;
  const issued = [first];
  const asked: string[] = [];
  const signedOut: SignOutReason[] = [];
  let answer = async (_what: string): Promise<void> => {};
  let told = () => {};
  const client = createTokenClient({
    authorizationServer: 'http://auth.example',
    clientId,
    delivery: 'cookie',
    apiOrigins: [],
    onSignedOut: (reason) => {
      signedOut.push(reason);
      told();
    },
    fetch: async (input, init) => {
      const { pathname } = new URL(String(input));
      const what = [pathname, new URLSearchParams(String(init?.body)).get('grant_type')].join(' ');
      asked.push(what);
      await answer(what);
      return Response.json({
        access_token: issued.length > 1 ? issued.shift() : issued[0],
        token_type: 'Bearer',
        expires_in: expiresInSeconds,
      });
    },
  });
  const name = `heirloom http://auth.example/ ${clientId}`;
  const channel = new BroadcastChannel(name);
  t.teardown(() => {
    client.close();
    channel.close();
  });
  const heard: Message[] = [];
  channel.onmessage = ({ data }: MessageEvent) => void heard.push(data);
  return {
    client,
    /** Of the channel and of the lock. */
    name,
    signedOut,
    asked,
    issued,
    heard,
    login: () => client.login({ username: 'alice', password: 'secret' }),
    onRequest(work: typeof answer) {
      answer = work;
    },
    onSignedOut(work: typeof told) {
      told = work;
    },
    async say(message: Message) {
      channel.postMessage(message);
      await settle();
    },
    /** A token that another tab has; sent a while ago, or by a clock that is ahead if negative. */
    token: (text: string, lifeMilliseconds = HOUR, agoMilliseconds = 0): Message => ({
      kind: 'token',
      token: { text, lifeMilliseconds },
      sentAt: Date.now() - agoMilliseconds,
    }),
  };
}

t.test(
  'a token that another tab offers is taken if it is newer and of the same login',
  async (t) => {
    const { client, login, say, token } = scene(t);
    await login();
    await say(token(second, HOUR / 2));
    t.equal(await client.accessToken(), first, 'older');
    await say(token(foreign, 2 * HOUR));
    t.equal(await client.accessToken(), first, 'of another login');
    await say(token(second, 2 * HOUR));
    t.equal(await client.accessToken(), second);
  },
);

t.test('a token that has expired, or did so on its way, is not taken', async (t) => {
  const { client, say, token } = scene(t);
  await say(token(first, -1));
  t.equal(client.isSignedIn, false, 'expired');
  await say(token(first, HOUR, HOUR + 1));
  t.equal(client.isSignedIn, false, 'expired on its way');
  await say(token(first, 30_000));
  t.equal(client.isSignedIn, true, 'good');
  await say(token(second, 25_000, -HOUR));
  t.equal(await client.accessToken(), first, "another clock does not lengthen a token's life");
});

t.test('a tab that is signed in is taken up again without a question', async (t) => {
  const { client, asked, heard, login } = scene(t);
  await login();
  t.equal(await client.resume(), true);
  await settle();
  t.strictSame(asked, ['/token password']);
  matchEach(t, heard, [{ kind: 'login' }]);
});

t.test('tokens of another make, which name no login, are renewed like any other', async (t) => {
  const { client, issued, login, signedOut } = scene(t, 0);
  issued.splice(0, 1, 'made-elsewhere-and-longer-than-ours', 'and-the-next-one-looks-different');
  await login();
  t.equal(await client.accessToken(), 'and-the-next-one-looks-different');
  t.strictSame(signedOut, []);
});

t.test('a login that a frozen tab hears of late has grown old meanwhile', async (t) => {
  const { client, asked, say } = scene(t);
  const token = { text: second, lifeMilliseconds: HOUR };
  await say({ kind: 'login', token, sentAt: Date.now() - HOUR });
  t.equal(client.isSignedIn, true);
  t.equal(await client.accessToken(), first);
  t.strictSame(asked, ['/token refresh_token']);
});

t.test('a token that another tab offers does not undo a logout', async (t) => {
  const { client, login, say, token } = scene(t);
  await login();
  await client.logout();
  await say(token(second));
  t.equal(client.isSignedIn, false);
  t.type(await rejection(client.accessToken()), SignedOutError);
});

t.test('a tab gives others its token while that is fresh, and else says nothing', async (t) => {
  const fresh = scene(t);
  await fresh.say({ kind: 'question' });
  t.strictSame(fresh.heard, [], 'nobody is signed in');
  await fresh.login();
  await settle();
  fresh.heard.length = 0;
  await fresh.say({ kind: 'question' });
  matchEach(t, fresh.heard, [{ kind: 'token', token: { text: first } }]);

  const old = scene(t, 0.4);
  await old.login();
  await pause(320);
  old.heard.length = 0;
  await old.say({ kind: 'question' });
  t.strictSame(old.heard, [], 'one in its last quarter is for nobody else');
});

t.test('a token that is renewed is told to other tabs', async (t) => {
  const { client, heard } = scene(t);
  t.ok(await client.resume());
  await settle();
  matchEach(t, heard, [{ kind: 'question' }, { kind: 'token', token: { text: first } }]);
});

t.test('a tab that is answered asks no server', async (t) => {
  const { client, asked, heard, say, token } = scene(t);
  const resumed = client.resume();
  while (heard.length === 0) await pause(1);
  await say(token(second));
  t.ok(await resumed);
  t.equal(await client.accessToken(), second);
  t.strictSame(asked, []);
});

t.test('a refresh is believed by nobody when somebody signs out or in meanwhile', async (t) => {
  const ends: Message[] = [
    { kind: 'signed-out', reason: 'logout' },
    { kind: 'signed-out', reason: 'ended' },
  ];
  for (const end of ends) {
    const { client, login, onRequest, say, asked } = scene(t, 0);
    await login();
    onRequest(() => say(end));
    t.type(await rejection(client.accessToken()), SignedOutError);
    t.equal(client.isSignedIn, false);
    t.strictSame(asked, ['/token password', '/token refresh_token']);
  }

  const { client, onRequest, say } = scene(t);
  onRequest(() =>
    say({
      kind: 'login',
      token: { text: foreign, lifeMilliseconds: HOUR },
      sentAt: Date.now(),
    }),
  );
  t.equal(await client.accessToken(), foreign, 'the login is later than the refresh');
  t.equal(await client.accessToken(), foreign);
});

t.test('a logout in another tab does not keep this one from repeating its own', async (t) => {
  const { client, login, onRequest, say, asked } = scene(t);
  await login();
  onRequest(async () => {
    onRequest(async () => {});
    await say({ kind: 'signed-out', reason: 'logout' });
    throw new TypeError('fetch failed');
  });
  await client.logout();
  t.strictSame(asked.slice(1), ['/revoke ', '/revoke ']);
});

t.test('an app that shows its login at once does not lose what comes of it', async (t) => {
  const { client, login, onSignedOut, asked } = scene(t);
  await login();
  let next: Promise<void> | undefined;
  onSignedOut(() => {
    next = login();
  });
  await client.logout();
  await next;
  t.strictSame(asked, ['/token password', '/revoke ', '/token password']);
  t.equal(client.isSignedIn, true);
});

t.test('a login survives what another tab says of the session before it', async (t) => {
  for (const isOldOneShown of [true, false]) {
    const { client, login, onRequest, say, asked, signedOut } = scene(t);
    if (isOldOneShown) await login();
    asked.length = 0;
    onRequest(() => say({ kind: 'signed-out', reason: 'ended' }));
    await login();
    t.equal(client.isSignedIn, true);
    t.equal(await client.accessToken(), first);
    t.strictSame(asked, ['/token password'], 'nothing is taken back');
    t.strictSame(signedOut, isOldOneShown ? ['ended'] : []);
  }
});

t.test(
  'a login that was called off while it waited for another tab sends no password',
  async (t) => {
    const { client, name, login, asked } = scene(t);
    const { promise: others, resolve: release } = Promise.withResolvers<void>();
    const held = navigator.locks.request(name, () => others);
    const refused = rejection(login());
    const logout = client.logout();
    release();
    t.type(await refused, SignedOutError);
    await Promise.all([logout, held]);
    t.strictSame(asked, ['/revoke ']);
  },
);

t.test('a login that fails was sent once: every attempt at a password counts', async (t) => {
  const { login, onRequest, asked } = scene(t);
  onRequest(() => Promise.reject(new TypeError('fetch failed')));
  t.type(await rejection(login()), UnavailableError);
  t.strictSame(asked, ['/token password']);
});
