/** Where the server can be reached decides which cookies a browser keeps and sends (RFC 6265 §5.1.4, §5.4). */
import t from 'tap';
import {
  APP_ORIGIN,
  browserLogin,
  browserLogout,
  browserRefresh,
  cookieNameOf,
  cookieValueOf,
  ownApp,
  setCookies,
} from '../support/browser.ts';
import { createTestDatabase } from '../support/database.ts';
import { isRefused } from '../support/errors.ts';
import { createCast } from '../support/fixtures.ts';
import { matchEach } from '../support/match.ts';
import { heirloom } from '../support/process.ts';
import { startServer } from '../support/server.ts';

const database = await createTestDatabase(t);
const safe = await startServer(t, { database, issuer: 'https://app.example.com/auth' });
await createCast(safe);
const webClient = {
  clientId: 'web',
  clientType: 'public',
  grantTypes: ['password', 'refresh_token'],
  scope: ['read'],
  delivery: 'cookie',
  origins: [APP_ORIGIN],
} as const;
await safe.dependencies.clients.create(webClient);
const env = { DATABASE_URL: database.url };

t.test('below a path of its own the cookie has the prefix that allows one', async (t) => {
  const { url } = await startServer(t, {
    database,
    issuer: 'https://app.example.com/auth',
    cookiePath: '/auth',
  });
  const name = cookieNameOf('web', '__Secure-');
  const login = await browserLogin(url, 'web');
  const attributes = { path: '/auth', httponly: '', secure: '', samesite: 'Strict' };
  matchEach(t, setCookies(login), [{ name, attributes }]);
  const headers = { ...ownApp, cookie: `${name}=${cookieValueOf(login)}` };
  const refreshed = await browserRefresh(url, 'web', headers);
  matchEach(t, setCookies(refreshed), [{ name, attributes }]);
  const cookie = `${name}=${cookieValueOf(refreshed)}`;
  const logout = await browserLogout(url, 'web', { ...ownApp, cookie });
  matchEach(t, setCookies(logout), [
    { name, value: '', attributes: { ...attributes, 'max-age': '0' } },
  ]);
});

t.test(
  'CKY-13 ASVS 3.3.1: where no browser keeps a Secure cookie, clients in cookie mode are refused',
  async (t) => {
    const unsafe = ['http://login.example', 'http://192.0.2.1:3000'];
    for (const ISSUER of unsafe) {
      const start = await heirloom(['serve'], { env: { ...env, ISSUER, PORT: '0' } });
      t.equal(start.code, 1, ISSUER);
      t.equal(start.stdout, '');
      t.match(
        start.stderr,
        /^The client "web" gets its refresh token by cookie[^\n]+https[^\n]+\n$/,
      );

      const words = ['client', 'create', '--id', 'late', '--type', 'public'];
      const cookie = ['--delivery', 'cookie', '--origin', 'https://app.example'];
      const creation = await heirloom([...words, ...cookie], { env: { ...env, ISSUER } });
      t.equal(creation.code, 1);
      t.match(creation.stderr, /^Cookie delivery needs an ISSUER with https[^\n]+\n$/);

      const { url } = await startServer(t, { database, issuer: ISSUER });
      const answer = await browserLogin(url, 'web');
      isRefused(t, answer, 'access_denied', 'registered after the start');
      t.strictSame(setCookies(answer), []);
    }
    for (const issuer of [
      'https://login.example',
      'http://localhost:3000',
      'http://127.0.0.1:3000',
    ]) {
      const { url } = await startServer(t, { database, issuer });
      const [cookie] = setCookies(await browserLogin(url, 'web'));
      t.equal(cookie?.attributes['secure'], '', `${issuer} keeps Secure`);
    }
  },
);
