/** What a request of a browser may do, as tables. */
import t from 'tap';
import { isCookieDeliverySafe, loadConfig } from '../../src/config.ts';
import { registeredFor } from '../../src/http/cors.ts';
import { cookieValues, refreshCookieName } from '../../src/http/refresh-cookie.ts';
import {
  acceptForRevocation,
  acceptRefreshToken,
  type BrowserRequest,
  candidateRefreshToken,
  causeOfDistrust,
} from '../../src/oauth/cookie-delivery.ts';

const origins = ['https://app.example.com'];
const own: BrowserRequest = {
  origin: 'https://app.example.com',
  fetchSite: 'same-site',
  csrfHeader: '1',
  refreshCookies: [],
};
const holding = (...refreshCookies: string[]): BrowserRequest => ({ ...own, refreshCookies });
const cookieClient = { delivery: 'cookie', clientId: 'web' } as const;
const bodyClient = { delivery: 'body', clientId: 'spa' } as const;

t.test('causeOfDistrust trusts a script of a registered origin on the same site', async (t) => {
  const cases: [Partial<BrowserRequest>, string | undefined][] = [
    [{}, undefined],
    [{ fetchSite: 'same-origin' }, undefined],
    [{ fetchSite: undefined }, undefined],
    [{ fetchSite: 'cross-site' }, 'request from another site'],
    [{ fetchSite: 'none' }, 'request from another site'],
    [{ fetchSite: '' }, 'request from another site'],
    [{ csrfHeader: undefined }, 'no CSRF header'],
    [{ csrfHeader: '1, 1' }, 'no CSRF header'],
    [{ origin: undefined }, 'origin is not one of the client'],
    [{ origin: 'null' }, 'origin is not one of the client'],
    [{ origin: 'https://app.example.com.' }, 'origin is not one of the client'],
    [{ origin: 'https://evil.example.com' }, 'origin is not one of the client'],
  ];
  for (const [change, cause] of cases) {
    t.equal(causeOfDistrust({ origins }, { ...own, ...change }), cause, JSON.stringify(change));
  }
});

t.test('the refresh token is where the client has it delivered, or nowhere', async (t) => {
  t.equal(acceptRefreshToken(bodyClient, 'body', holding('cookie')), 'body');
  t.equal(acceptRefreshToken(bodyClient, undefined, holding('cookie')), undefined);
  t.equal(acceptRefreshToken(cookieClient, undefined, holding('cookie')), 'cookie');
  t.equal(acceptRefreshToken(cookieClient, undefined, holding()), undefined);
  const code = 'invalid_request';
  t.throws(() => acceptRefreshToken(cookieClient, 'body', holding('cookie')), { code });
  t.throws(() => acceptRefreshToken(cookieClient, 'body', holding()), { code });
  t.throws(() => acceptRefreshToken(cookieClient, undefined, holding('a', 'a')), { code });
});

t.test('what is accepted is what was read, or nothing', async (t) => {
  for (const client of [bodyClient, cookieClient]) {
    for (const inBody of [undefined, 'body']) {
      for (const browser of [holding(), holding('a'), holding('a', 'b')]) {
        const candidate = candidateRefreshToken(inBody, browser);
        try {
          const accepted = acceptRefreshToken(client, inBody, browser);
          t.ok(accepted === undefined || accepted === candidate);
          const toRevoke = acceptForRevocation(
            client,
            { token: inBody, isRefreshToken: false },
            browser,
          );
          t.ok(toRevoke.token === undefined || toRevoke.token === candidate);
        } catch (error) {
          t.match(error, { code: 'invalid_request' });
        }
      }
    }
  }
});

t.test('a revocation means the token in the body before the cookie', async (t) => {
  const access = { token: 'access', isRefreshToken: false };
  const refresh = { token: 'refresh', isRefreshToken: true };
  const none = { token: undefined, isRefreshToken: false };
  const inBody = (token: string | undefined) => ({ token, isFromCookie: false });
  t.strictSame(acceptForRevocation(cookieClient, access, holding('c')), inBody('access'));
  t.strictSame(acceptForRevocation(cookieClient, refresh, holding()), inBody('refresh'));
  t.strictSame(acceptForRevocation(cookieClient, none, holding()), inBody(undefined));
  t.strictSame(acceptForRevocation(bodyClient, none, holding('c')), inBody(undefined));
  t.strictSame(acceptForRevocation(cookieClient, none, holding('c')), {
    token: 'c',
    isFromCookie: true,
  });
  const code = 'invalid_request';
  t.throws(() => acceptForRevocation(cookieClient, refresh, holding('c')), { code });
  t.throws(() => acceptForRevocation(cookieClient, none, holding('a', 'b')), { code });
});

t.test('cookies are found by their whole name, as often as they come', async (t) => {
  t.strictSame(cookieValues('a=1; n=2;n=3 ; nn=4; n; n=; xn=5; N=6', 'n'), ['2', '3']);
  t.strictSame(cookieValues('n==x', 'n'), ['=x']);
  t.strictSame(cookieValues('', 'n'), []);
  const name = refreshCookieName('web', '/');
  t.match(name, /^__Host-heirloom_refresh_[0-9a-f]{16}$/);
  t.not(refreshCookieName('Web', '/'), name);
  t.match(refreshCookieName('web', '/auth'), /^__Secure-heirloom_refresh_[0-9a-f]{16}$/);
});

t.test('an origin is registered for a client or it is not', async (t) => {
  t.strictSame(registeredFor({ origins, delivery: 'cookie' }, 'https://app.example.com'), {
    hasCookieClient: true,
  });
  t.strictSame(registeredFor({ origins, delivery: 'body' }, 'https://app.example.com'), {
    hasCookieClient: false,
  });
  t.equal(registeredFor({ origins, delivery: 'body' }, 'https://app.example'), undefined);
});

t.test('COOKIE_PATH is a path that the endpoints are below, as browsers see them', async (t) => {
  const load = (COOKIE_PATH: string, ISSUER = 'https://app.example/auth/login') =>
    loadConfig({ COOKIE_PATH, ISSUER, DATABASE_URL: 'postgres://h/d' }).cookiePath;
  t.equal(load(''), '/');
  t.equal(load('/'), '/');
  t.equal(load('/auth'), '/auth');
  t.equal(load('/auth/'), '/auth');
  t.equal(load('/auth/login'), '/auth/login');
  for (const path of [
    'auth',
    '/aut',
    '/auth/login/token',
    '/authx',
    '/other',
    '/auth;x',
    '/auth x',
    '//',
    '/auth\n',
  ]) {
    t.throws(() => load(path), /COOKIE_PATH must be/, path);
  }
});

t.test('cookies are safe over https and on loopback', async (t) => {
  const isSafe = (env: Record<string, string>) =>
    isCookieDeliverySafe(loadConfig({ DATABASE_URL: 'postgres://h/d', ...env }));
  t.ok(isSafe({}));
  t.ok(isSafe({ ISSUER: 'https://login.example', HOST: '0.0.0.0' }));
  t.ok(isSafe({ ISSUER: 'http://[::1]:3000' }));
  t.notOk(isSafe({ HOST: '192.0.2.1' }));
  t.notOk(isSafe({ ISSUER: 'http://localhost.example' }));
});
