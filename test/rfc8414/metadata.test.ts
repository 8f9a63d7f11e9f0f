/**
 * Authorization server metadata, RFC 8414.
 *
 *   GET /.well-known/oauth-authorization-server[/path of the issuer]   §3.1
 *   issuer, token_endpoint, grant_types_supported, …                  §2
 */
import t from 'tap';
import { post, send } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import { createCast, introspect, login } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const database = await createTestDatabase(t);
const server = await startServer(t, { database });
const cast = await createCast(server);
const WELL_KNOWN = '/.well-known/oauth-authorization-server';
const metadata = async (url: string, path = WELL_KNOWN) => (await send(url + path)).body;

t.test(
  'MET-01 RFC 8414 §3.2: the document names the configured issuer, code point for code point',
  async (t) => {
    const answer = await send(server.url + WELL_KNOWN);
    t.equal(answer.status, 200);
    t.match(answer.headers.get('content-type'), /^application\/json/);
    t.equal(answer.body.issuer, server.url, 'by default where it listens');
    const issuer = 'https://Login.Example/A';
    const other = await startServer(t, { database, issuer });
    t.equal((await metadata(other.url, `${WELL_KNOWN}/A`)).issuer, issuer);
  },
);

t.test(
  'MET-02 RFC 8414 §3.1: an issuer with a path has its document behind the well-known part',
  async (t) => {
    for (const issuer of ['https://login.example/tenant', 'https://login.example/tenant/']) {
      const other = await startServer(t, { database, issuer });
      const body = await metadata(other.url, `${WELL_KNOWN}/tenant`);
      t.equal(body.issuer, issuer);
      t.equal(body.token_endpoint, 'https://login.example/tenant/token');
      t.strictSame(await metadata(other.url), body, 'a proxy may strip the path');
    }
  },
);

t.test('MET-03 RFC 8414 §2: grant_types_supported lists exactly what is switched on', async (t) => {
  t.strictSame((await metadata(server.url)).grant_types_supported, ['password', 'refresh_token']);
  const without = await startServer(t, { database, isPasswordGrantOn: false });
  t.strictSame((await metadata(without.url)).grant_types_supported, ['refresh_token']);
});

t.test('MET-04 RFC 8414 §2: every endpoint and its authentication methods are there', async (t) => {
  t.strictSame(await metadata(server.url), {
    issuer: server.url,
    token_endpoint: `${server.url}/token`,
    token_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post', 'none'],
    grant_types_supported: ['password', 'refresh_token'],
    revocation_endpoint: `${server.url}/revoke`,
    revocation_endpoint_auth_methods_supported: [
      'client_secret_basic',
      'client_secret_post',
      'none',
    ],
    introspection_endpoint: `${server.url}/introspect`,
    introspection_endpoint_auth_methods_supported: ['client_secret_basic', 'client_secret_post'],
  });
});

t.test(
  'MET-05 RFC 8414 §3.2: no member is empty, and there is no authorization endpoint',
  async (t) => {
    const body = await metadata(server.url);
    for (const [name, value] of Object.entries(body)) t.not((value as string).length, 0, name);
    t.notOk('authorization_endpoint' in body || 'response_types_supported' in body);
  },
);

t.test('MET-06 RFC 8414 §2: nothing is announced that does not exist', async (t) => {
  const body = await metadata(server.url);
  t.notOk('code_challenge_methods_supported' in body || 'jwks_uri' in body);
});

t.test('MET-07 RFC 8414 §6.2: what the request says about the host is not believed', async (t) => {
  const forged = {
    'x-forwarded-host': 'evil.example',
    'x-forwarded-proto': 'https',
    forwarded: 'host=evil.example;proto=https',
  };
  const answer = await send(server.url + WELL_KNOWN, { headers: forged });
  t.notMatch(answer.text, 'evil.example');
  t.equal(answer.body.issuer, server.url);
});

t.test('MET-08 RFC 9700 §2.6: what is announced works, and what is not is refused', async (t) => {
  const body = await metadata(server.url);
  const token = (await login(server, cast.c1)).body;
  t.equal((await introspect(server, cast.c1, token.access_token)).body.active, true);
  const refreshed = await post(body.token_endpoint, {
    grant_type: 'refresh_token',
    client_id: cast.c1.id,
    client_secret: cast.c1.secret,
    refresh_token: token.refresh_token,
  });
  t.equal(refreshed.status, 200);
  for (const grant_type of ['authorization_code', 'client_credentials', 'implicit']) {
    const answer = await post(body.token_endpoint, { grant_type, client_id: cast.p1.id });
    t.equal(answer.body.error, 'unsupported_grant_type');
  }
  const without = await startServer(t, { database, isPasswordGrantOn: false });
  t.equal((await login(without, cast.c1)).body.error, 'unsupported_grant_type');
});

t.test('MET-09 RFC 8414 §5: this is not an OpenID provider', async (t) => {
  t.equal((await send(`${server.url}/.well-known/openid-configuration`)).status, 404);
});

t.test(
  'MET-12 ASVS 16.5.2: livez says that the process lives, readyz that requests are served',
  async (t) => {
    const own = await startServer(t);
    t.strictSame((await send(`${own.url}/livez`)).body, { status: 'ok' });
    t.strictSame((await send(`${own.url}/readyz`)).body, { status: 'ok' });
    await own.dependencies.database.close();
    t.equal((await send(`${own.url}/livez`)).status, 200);
    const notReady = await send(`${own.url}/readyz`);
    t.equal(notReady.status, 503);
    t.strictSame(notReady.body, { error: 'temporarily_unavailable' });
    t.match(notReady.headers.get('retry-after'), /^\d+$/);
  },
);
