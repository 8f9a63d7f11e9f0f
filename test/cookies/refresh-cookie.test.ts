/**
 * Cookie delivery, OAuth 2.0 for Browser-Based Applications §6.1.3:
 *
 *   Set-Cookie: __Host-heirloom_refresh_<16 hex of SHA-256(client_id)>=<refresh token>;
 *     Max-Age; Path=/; HttpOnly; Secure; SameSite=Strict
 *
 * and back with Cookie, an Origin of the client, X-Heirloom-CSRF: 1 and a fitting Sec-Fetch-Site.
 */
import t, { type Test } from 'tap';
import {
  APP_ORIGIN,
  browserLogin,
  browserLogout,
  browserRefresh,
  cookieHeader,
  cookieNameOf,
  cookieValueOf,
  ownApp,
  setCookies,
} from '../support/browser.ts';
import { type Answer, post, send } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import { hasFailed, isRefused } from '../support/errors.ts';
import { createCast, introspect, login, refresh } from '../support/fixtures.ts';
import { startProxy } from '../support/proxy.ts';
import { exchange, request } from '../support/raw.ts';
import { startServer } from '../support/server.ts';

const database = await createTestDatabase(t);
const server = await startServer(t, { database, isRateLimitOn: false });
const { url } = server;
const { c1, p1 } = await createCast(server);
const any = { id: 'any', secret: '' };

const settings = {
  clientType: 'public',
  grantTypes: ['password', 'refresh_token'],
  scope: ['read', 'write'],
  delivery: 'cookie',
  origins: [APP_ORIGIN, 'https://second.example.com'],
} as const;
for (const clientId of ['web', 'shop']) {
  await server.dependencies.clients.create({ clientId, ...settings });
}
const created = await server.dependencies.clients.create({
  clientId: any.id,
  clientType: 'confidential',
  introspectionRight: 'any',
});
any.secret = created.clientSecret as string;

const idleLifetimeSeconds = server.dependencies.config.lifetimes.refreshTokenIdleLifetimeSeconds;

const withCookie = (value: string, headers = ownApp) => ({
  ...headers,
  ...cookieHeader('web', value),
});

/** The attributes that every cookie has, whether it is set or cleared. */
function isOurCookie(t: Test, answer: Answer, maxAge: RegExp, clientId = 'web'): void {
  const [cookie, ...others] = setCookies(answer);
  t.strictSame(others, []);
  t.equal(cookie?.name, cookieNameOf(clientId));
  const { 'max-age': seconds = '', ...attributes } = cookie?.attributes ?? {};
  t.match(seconds, maxAge);
  t.strictSame(attributes, { path: '/', httponly: '', secure: '', samesite: 'Strict' });
}

/** Nothing changed, which the very cookie that was misused proves: it still is current. */
async function isUnspent(t: Test, cookie: string, why: string): Promise<void> {
  const { rows } = await server.inspect.query(
    `select generation, revoked_at from token_family where current_digest =
       sha256(substring(decode(translate($1, '-_', '+/'), 'base64') from 33 for 32))`,
    [`${cookie.slice(4)}=`],
  );
  t.strictSame(rows, [{ generation: rows[0]?.generation, revoked_at: null }], why);
}

/** Requests that other pages can make a browser send, with the cookie attached. */
const forgeries: Readonly<Record<string, Record<string, string>>> = {
  'a form on another site': { origin: 'https://evil.example', 'sec-fetch-site': 'cross-site' },
  'a form on a sibling subdomain': {
    origin: 'https://evil.example.com',
    'sec-fetch-site': 'same-site',
  },
  'a form of the app itself': { origin: APP_ORIGIN, 'sec-fetch-site': 'same-site' },
  'a script on a sibling subdomain': { ...ownApp, origin: 'https://evil.example.com' },
  'a script on another site': { ...ownApp, origin: 'https://evil.example' },
  'a page with an opaque origin': { ...ownApp, origin: 'null' },
  'the app over plain HTTP': { ...ownApp, origin: 'http://app.example.com' },
  'an app of another site': { ...ownApp, 'sec-fetch-site': 'cross-site' },
  'a navigation': { ...ownApp, 'sec-fetch-site': 'none' },
  'a header that was sent twice': { ...ownApp, 'sec-fetch-site': 'same-site, cross-site' },
  'no origin': { 'x-heirloom-csrf': '1' },
  'another value of the header': { ...ownApp, 'x-heirloom-csrf': 'true' },
};

t.test(
  'CKY-01 BBA 6.1.3.2: the refresh token travels in a cookie of its client and nowhere else',
  async (t) => {
    const answer = await browserLogin(url, 'web');
    t.equal(answer.status, 200);
    t.strictSame(Object.keys(answer.body), ['access_token', 'token_type', 'expires_in', 'scope']);
    isOurCookie(t, answer, /^\d+$/);
    t.equal(answer.headers.get('cache-control'), 'no-store');

    const other = await browserLogin(url, 'shop', withCookie(cookieValueOf(answer)));
    isOurCookie(t, other, /^\d+$/, 'shop');
    const cookies = { cookie: [answer, other].map(cookiePair).join('; ') };
    await browserLogout(url, 'shop', { ...ownApp, ...cookies });
    const again = await browserRefresh(url, 'web', { ...ownApp, ...cookies });
    t.equal(again.status, 200, 'one app signs nobody out of another');
    isOurCookie(t, again, /^\d+$/);
  },
);

const cookiePair = (answer: Answer): string => {
  const [cookie] = setCookies(answer);
  return `${cookie?.name}=${cookie?.value}`;
};

t.test('CKY-02 NIST 5.1.1: the cookie ends no later than the token in it', async (t) => {
  const first = await browserLogin(url, 'web');
  const lives = async (answer: Answer) => {
    const [cookie] = setCookies(answer);
    t.ok(`${cookie?.name}${cookie?.value}`.length <= 4096);
    return Number(cookie?.attributes['max-age']);
  };
  for (const answer of [
    first,
    await browserRefresh(url, 'web', withCookie(cookieValueOf(first))),
  ]) {
    const seconds = await lives(answer);
    t.ok(seconds <= idleLifetimeSeconds && seconds > idleLifetimeSeconds - 10, String(seconds));
  }
  await server.dependencies.clients.create({
    clientId: 'short',
    ...settings,
    refreshTokenIdleLifetimeSeconds: 500,
    refreshTokenLifetimeSeconds: 600,
  });
  const session = await browserLogin(url, 'short');
  await server.inspect.query(
    `update token_family set expires_at = date_trunc('second', clock_timestamp()) + interval '100 s',
       idle_expires_at = date_trunc('second', clock_timestamp()) + interval '90 s'
     where client_key = (select key from client where client_id = 'short')`,
  );
  const value = cookieValueOf(session);
  const headers = { ...ownApp, ...cookieHeader('short', value) };
  const rotated = await lives(await browserRefresh(url, 'short', headers));
  t.ok(rotated <= 100 && rotated > 80, `the absolute end counts: ${rotated}`);
  const retried = await lives(await browserRefresh(url, 'short', headers));
  t.ok(retried <= rotated && retried > 80, `a retry counts what is left: ${retried}`);
});

t.test('CKY-03 BBA 6.1.3.3.2: without the custom header the cookie is worth nothing', async (t) => {
  const cookie = cookieValueOf(await browserLogin(url, 'web'));
  const { 'x-heirloom-csrf': _, ...headers } = withCookie(cookie) as Record<string, string>;
  const answer = await browserRefresh(url, 'web', headers);
  isRefused(t, answer, 'access_denied');
  t.strictSame(setCookies(answer), []);
  await isUnspent(t, cookie, 'no rotation');
  t.equal((await browserRefresh(url, 'web', withCookie(cookie))).status, 200);
});

t.test(
  'CKY-04 ASVS 3.5.3, 3.5.8: no other page can refresh, log out or change anything',
  async (t) => {
    const cookie = cookieValueOf(await browserLogin(url, 'web'));
    for (const [name, headers] of Object.entries(forgeries)) {
      for (const present of [browserRefresh, browserLogout]) {
        const answer = await present(url, 'web', withCookie(cookie, headers));
        isRefused(t, answer, 'access_denied', name);
        t.strictSame(setCookies(answer), [], name);
      }
    }
    await isUnspent(t, cookie, 'not refreshed, not logged out');
    t.equal((await browserRefresh(url, 'web', withCookie(cookie))).status, 200);
  },
);

t.test('CKY-05 BBA: the own app refreshes, from each of its origins', async (t) => {
  let cookie = cookieValueOf(await browserLogin(url, 'web'));
  const { 'sec-fetch-site': _, ...withoutFetchMetadata } = ownApp;
  const accepted = [
    ownApp,
    { ...ownApp, 'sec-fetch-site': 'same-origin' },
    { ...ownApp, origin: 'https://second.example.com' },
    withoutFetchMetadata,
  ];
  for (const headers of accepted) {
    const answer = await browserRefresh(url, 'web', withCookie(cookie, headers));
    t.equal(answer.status, 200, JSON.stringify(headers));
    isOurCookie(t, answer, /^\d+$/);
    t.notOk('refresh_token' in answer.body);
    t.not(cookieValueOf(answer), cookie);
    cookie = cookieValueOf(answer);
  }
});

t.test('a retry inside the window sends the same cookie again', async (t) => {
  const cookie = cookieValueOf(await browserLogin(url, 'web'));
  const requests = Array.from({ length: 5 }, () => browserRefresh(url, 'web', withCookie(cookie)));
  const values = (await Promise.all(requests)).map(cookieValueOf);
  t.equal(new Set(values).size, 1, 'whichever answer comes last, the cookie is the same');
  t.not(values[0], cookie);
});

t.test(
  'CKY-06 RFC 6749 §5.2 "multiple credentials": a token in the body, or a second cookie, is invalid_request',
  async (t) => {
    const cookie = cookieValueOf(await browserLogin(url, 'web'));
    const other = cookieValueOf(await browserLogin(url, 'web'));
    const both = { refresh_token: other };
    isRefused(t, await browserRefresh(url, 'web', withCookie(cookie), both), 'invalid_request');
    isRefused(
      t,
      await browserRefresh(url, 'web', withCookie(cookie), { refresh_token: cookie }),
      'invalid_request',
      'even the same',
    );
    isRefused(t, await browserRefresh(url, 'web', ownApp, both), 'invalid_request', 'body only');
    const logout = { token: other };
    isRefused(t, await browserLogout(url, 'web', withCookie(cookie), logout), 'invalid_request');
    const name = cookieNameOf('web');
    const planted = { ...ownApp, cookie: `${name}=${other}; a=b; ${name}=${cookie}` };
    for (const present of [browserRefresh, browserLogout]) {
      const answer = await present(url, 'web', planted);
      isRefused(t, answer, 'invalid_request', 'planted by a sibling subdomain');
      t.strictSame(setCookies(answer), []);
    }
    await isUnspent(t, cookie, 'cookie');
    await isUnspent(t, other, 'body');
  },
);

t.test('CKY-07 BBA: a cookie means nothing for a client that is not in cookie mode', async (t) => {
  const session = await login(server, p1);
  const { refresh_token: token } = session.body;
  const headers = { ...ownApp, ...cookieHeader('P1', token) };
  isRefused(t, await browserRefresh(url, 'P1', headers), 'invalid_request', 'no other token');
  isRefused(t, await browserLogout(url, 'P1', headers), 'invalid_request', 'no other token');
  await isUnspent(t, token, 'never used');
  const own = (await login(server, p1)).body.refresh_token;
  const answer = await browserRefresh(url, 'P1', headers, { refresh_token: own });
  t.equal(answer.status, 200, 'the body counts');
  t.type(answer.body.refresh_token, 'string');
  t.strictSame(setCookies(answer), []);
  await isUnspent(t, token, 'never used');
  const others = { ...ownApp, cookie: cookieHeader('web', token).cookie as string };
  isRefused(t, await browserRefresh(url, 'web', others), 'invalid_grant', 'another client’s');
  await isUnspent(t, token, 'another client’s cookie ends nothing');
});

t.test('CKY-08 OWASP CSRF CS: no other page can log a person in', async (t) => {
  for (const [name, headers] of Object.entries(forgeries)) {
    const answer = await browserLogin(url, 'web', headers);
    isRefused(t, answer, 'access_denied', name);
    t.strictSame(setCookies(answer), [], name);
  }
});

t.test(
  'CKY-09 ASVS 7.4.1, 14.3.1: logging out ends the session and clears the cookie',
  async (t) => {
    const first = await browserLogin(url, 'web');
    const refreshed = await browserRefresh(url, 'web', withCookie(cookieValueOf(first)));
    const cookie = cookieValueOf(refreshed);

    const accessToken = { token: first.body.access_token };
    const partial = await browserLogout(url, 'web', withCookie(cookie), accessToken);
    t.equal(partial.status, 200);
    t.strictSame(setCookies(partial), [], 'an access token ends only itself');
    t.equal((await introspect(server, any, refreshed.body.access_token)).body.active, true);

    const answer = await browserLogout(url, 'web', withCookie(cookie));
    t.equal(answer.status, 200);
    t.equal(answer.text, '{}');
    isOurCookie(t, answer, /^0$/);
    t.equal(cookieValueOf(answer), '');
    t.strictSame((await introspect(server, any, refreshed.body.access_token)).body, {
      active: false,
    });

    const again = await browserLogout(url, 'web', withCookie(cookie));
    t.equal(again.status, 200, 'as often as one likes');
    isOurCookie(t, again, /^0$/);
    const garbage = await browserLogout(url, 'web', withCookie('garbage'));
    t.equal(garbage.status, 200);
    isOurCookie(t, garbage, /^0$/);
    isRefused(t, await browserLogout(url, 'web', ownApp), 'invalid_request', 'nothing to end');
  },
);

/** Sets the retry window of a family aside, so that a second presentation is a replay. */
const closeWindow = () =>
  server.inspect.query(
    `update token_family set retry_until = rotated_at where rotated_at is not null`,
  );
const endAll = (change: string) =>
  server.inspect.query(
    `update token_family set ${change}
     where client_key = (select key from client where client_id = 'web') and revoked_at is null`,
  );

t.test(
  'CKY-10 section 3.7: the end of the session clears the cookie, and nothing else does',
  async (t) => {
    const start = async () => cookieValueOf(await browserLogin(url, 'web'));
    const over: Record<string, (cookie: string) => Promise<unknown>> = {
      replayed: async (cookie) => {
        await browserRefresh(url, 'web', withCookie(cookie));
        await closeWindow();
      },
      revoked: (cookie) => browserLogout(url, 'web', withCookie(cookie)),
      idle: () => endAll(`idle_expires_at = started_at`),
      expired: () => endAll(`expires_at = started_at, idle_expires_at = started_at`),
      deleted: () => server.inspect.query('delete from token_family'),
    };
    for (const [name, end] of Object.entries(over)) {
      const cookie = await start();
      await end(cookie);
      const answer = await browserRefresh(url, 'web', withCookie(cookie));
      isRefused(t, answer, 'invalid_grant', name);
      isOurCookie(t, answer, /^0$/);
    }

    const cookie = await start();
    const strangers = (await login(server, c1)).body.refresh_token;
    const kept: Record<string, Promise<Answer>> = {
      'a malformed token': browserRefresh(url, 'web', withCookie('garbage')),
      'an access token': browserRefresh(
        url,
        'web',
        withCookie((await browserLogin(url, 'web')).body.access_token),
      ),
      'another client’s live session': browserRefresh(url, 'web', withCookie(strangers)),
      'no header': browserRefresh(url, 'web', cookieHeader('web', cookie)),
      'too much scope': browserRefresh(url, 'web', withCookie(cookie), { scope: 'admin' }),
      'a wrong grant': browserRefresh(url, 'web', withCookie(cookie), { grant_type: 'x' }),
      'a wrong password': post(
        `${url}/token`,
        { grant_type: 'password', client_id: 'web', username: 'alice', password: 'wrong' },
        withCookie(cookie),
      ),
      'a secret that a public client has not': browserRefresh(url, 'web', withCookie(cookie), {
        client_secret: 'x',
      }),
    };
    for (const [name, answer] of Object.entries(kept)) {
      t.ok((await answer).status >= 400, name);
      t.strictSame(setCookies(await answer), [], name);
    }
    await isUnspent(t, cookie, 'all that time');
  },
);

t.test('trouble of ours leaves the cookie alone', async (t) => {
  const cookie = cookieValueOf(await browserLogin(url, 'web'));
  const proxy = await startProxy(t, database.url);
  const reached = { ...database, url: proxy.url };
  const unlucky = await startServer(t, { database: reached, isRateLimitOn: false });
  proxy.cut();
  for (const present of [browserRefresh, browserLogout]) {
    const answer = await present(unlucky.url, 'web', withCookie(cookie));
    hasFailed(t, answer, 503, 'temporarily_unavailable');
    t.strictSame(setCookies(answer), []);
  }
  proxy.restore();

  const limited = await startServer(t, { database });
  const headers = { ...withCookie(cookie), 'content-type': 'application/x-www-form-urlencoded' };
  const burst = request('POST /token', { ...headers, Connection: 'keep-alive' }).repeat(1000);
  const answers = await exchange(limited.url, burst + request('POST /token', headers));
  const refused = answers.filter(({ status }) => status === 429);
  t.not(refused.length, 0);
  for (const answer of refused) t.strictSame(setCookies(answer), []);
  await isUnspent(t, cookie, 'neither spent nor ended');
});

t.test('CKY-11 ASVS 3.5.3: GET changes nothing and sets no cookie', async (t) => {
  const cookie = cookieValueOf(await browserLogin(url, 'web'));
  const paths = Object.keys((await send(`${url}/docs/json`)).body.paths);
  const query = new URLSearchParams({ grant_type: 'refresh_token', client_id: 'web' });
  for (const path of [...paths, '/']) {
    for (const method of ['GET', 'HEAD']) {
      const answer = await send(`${url}${path}?${query}`, { method, headers: withCookie(cookie) });
      t.strictSame(setCookies(answer), [], `${method} ${path}`);
    }
  }
  await isUnspent(t, cookie, 'no rotation, no logout');
});

t.test('CKY-12 ASVS 7.2.4 (fixation): a login never adopts a cookie that was there', async (t) => {
  const attackers = cookieValueOf(await browserLogin(url, 'web'));
  const name = cookieNameOf('web');
  const planted = [attackers, `hrt_${'A'.repeat(91)}`, 'x', `${attackers}; ${name}=x`];
  for (const value of planted) {
    const answer = await browserLogin(url, 'web', withCookie(value));
    t.equal(answer.status, 200);
    const own = cookieValueOf(answer);
    t.not(own.slice(0, 25), attackers.slice(0, 25), 'another family');
    t.notOk(planted.includes(own));
  }
  await isUnspent(t, attackers, 'and does not end what it belongs to');
});

t.test(
  'CKY-14 NIST 5.1.1 SHALL NOT: the cookie holds an opaque token and nothing else',
  async (t) => {
    const answer = await browserLogin(url, 'web');
    t.match(cookieValueOf(answer), /^hrt_[A-Za-z0-9_-]{91}$/);
    const bytes = Buffer.from(cookieValueOf(answer).slice(4), 'base64url').toString('latin1');
    t.notMatch(bytes, /alice|web/);
  },
);

t.test('a cookie client is known by the Authorization header too', async (t) => {
  const authorization = `Basic ${Buffer.from('web:').toString('base64')}`;
  const cookie = cookieValueOf(await browserLogin(url, 'web'));
  const headers = { ...withCookie(cookie), authorization };
  const answer = await post(`${url}/token`, { grant_type: 'refresh_token' }, headers);
  t.equal(answer.status, 200);
  isOurCookie(t, answer, /^\d+$/);
});

t.test('a client that may not refresh gets no cookie', async (t) => {
  const grantTypes = ['password'];
  await server.dependencies.clients.create({ clientId: 'once', ...settings, grantTypes });
  const answer = await browserLogin(url, 'once');
  t.equal(answer.status, 200);
  t.strictSame(setCookies(answer), []);
});

t.test('an app whose cookie is gone learns that its session is over', async (t) => {
  const answer = await browserRefresh(url, 'web', ownApp);
  isRefused(t, answer, 'invalid_grant');
  t.strictSame(setCookies(answer), [], 'there is nothing to clear');
  isRefused(t, await refresh(server, { id: 'web' }, 'hrt_x'), 'access_denied', 'not from an app');
});

t.test('no cookie is in the log, whether it was accepted or refused', async (t) => {
  const first = cookieValueOf(await browserLogin(url, 'web'));
  await browserRefresh(url, 'web', cookieHeader('web', first));
  const second = cookieValueOf(await browserRefresh(url, 'web', withCookie(first)));
  await browserLogout(url, 'web', withCookie(second));
  await browserRefresh(url, 'web', withCookie(second));
  const log = server.logs.join('');
  t.match(log, /"code":"access_denied","detail":"no CSRF header","clientId":"web"/);
  // What follows the family id, which a log may name, is secret.
  for (const value of [first, second]) t.notOk(log.includes(value.slice(26)));
  t.notOk(log.includes('heirloom_refresh_'));
});
