/**
 * The HTTP surface: methods, paths, framing and content negotiation, RFC 9110 and RFC 9112.
 *
 *   POST     /token /revoke /introspect                                RFC 6749 §3.2, RFC 7009 §2.1, RFC 7662 §2.1
 *   GET      /.well-known/oauth-authorization-server /livez /readyz    RFC 8414 §3.1
 *   OPTIONS  204 with Allow; any other method 405 with Allow           RFC 9110 §9.3.7, §15.5.6
 *   errors   {"error": …} and nothing of the request in it
 */
import { connect } from 'node:net';
import { brotliCompressSync, deflateSync, gzipSync } from 'node:zlib';
import t from 'tap';
import { type Answer, form, send } from '../support/client.ts';
import { hasFailed, isRefused } from '../support/errors.ts';
import { ALICE_PASSWORD, createCast, introspect, login } from '../support/fixtures.ts';
import { exchange, exchangeOne, request } from '../support/raw.ts';
import { startServer, type TestServer } from '../support/server.ts';

const server = await startServer(t, { isRateLimitOn: false });
const { c1, rs1 } = await createCast(server);
const database = { url: server.databaseUrl, inspect: server.inspect };
/** The same with the limits of production. */
const limited = await startServer(t, { database });

const FORM = { 'Content-Type': 'application/x-www-form-urlencoded' };
const METADATA = '/.well-known/oauth-authorization-server';
const routes = {
  '/token': 'POST, OPTIONS',
  '/revoke': 'POST, OPTIONS',
  '/introspect': 'POST, OPTIONS',
  [METADATA]: 'GET, HEAD, OPTIONS',
  '/livez': 'GET, HEAD, OPTIONS',
  '/readyz': 'GET, HEAD, OPTIONS',
};

/** A body with which every endpoint would do something. */
const complete = (parameters: Record<string, string> = {}): string =>
  form({
    grant_type: 'password',
    username: 'alice',
    password: ALICE_PASSWORD,
    client_id: c1.id,
    client_secret: c1.secret,
    ...parameters,
  });

const ask = (
  startLine: string,
  headers: Record<string, string> = FORM,
  body = complete(),
  { url }: TestServer = server,
): Promise<Answer> => exchangeOne(url, request(startLine, headers, body));

async function countFamilies(): Promise<unknown> {
  return (await server.inspect.query('select count(*) from token_family')).rows;
}

t.test('HTTP-01 RFC 6749 §3.2: the endpoints are POST only and process nothing else', async (t) => {
  const { access_token } = (await login(server, c1)).body;
  const before = await countFamilies();
  const body = complete({ token: access_token });
  for (const path of ['/token', '/revoke', '/introspect']) {
    for (const method of ['GET', 'PUT', 'PATCH', 'DELETE', 'QUERY']) {
      for (const type of [FORM, { 'Content-Type': 'application/json' }, {}]) {
        const answer = await ask(`${method} ${path}?${body}`, type, body);
        hasFailed(t, answer, 405, 'method_not_allowed', `${method} ${path}`);
        t.equal(answer.headers.get('allow'), 'POST, OPTIONS');
      }
    }
  }
  t.strictSame(await countFamilies(), before);
  t.equal((await introspect(server, rs1, access_token)).body.active, true);
});

t.test('HTTP-02 RFC 9110 §9.3.2: HEAD is 405 without content and counts no login', async (t) => {
  const before = await countFamilies();
  // More than the ten failed logins a minute that one account has from one address.
  for (const password of [ALICE_PASSWORD, ...Array(12).fill('wrong')]) {
    const startLine = `HEAD /token?${complete({ password })}`;
    const { status, headers, text } = await ask(startLine, {}, '', limited);
    t.strictSame([status, headers.get('allow'), text], [405, 'POST, OPTIONS', '']);
  }
  t.strictSame(await countFamilies(), before);
  t.equal((await login(limited, c1)).status, 200);
});

t.test('HTTP-03 ASVS 13.4.4: other methods are refused and nothing is echoed', async (t) => {
  const expected: [string, number, string][] = [
    ['TRACE /token', 405, 'method_not_allowed'],
    ['TRACE /nowhere', 404, 'not_found'],
    ['PROPFIND /token', 501, 'not_implemented'],
    ['PROPFIND /nowhere', 501, 'not_implemented'],
    ['CONNECT heirloom.example:443', 501, 'not_implemented'],
    ['CONNECT /token', 501, 'not_implemented'],
    ['MARKER /token', 400, 'invalid_request'],
    ['post /token', 400, 'invalid_request'],
  ];
  for (const [startLine, status, error] of expected) {
    const answer = await ask(startLine, { 'X-Marker': 'marker', Cookie: 'marker=1' }, '');
    hasFailed(t, answer, status, error, startLine);
    t.notMatch(JSON.stringify([...answer.headers, answer.text]), /marker/i, startLine);
  }
  t.equal((await ask('TRACE /token', {}, '')).headers.get('allow'), 'POST, OPTIONS');

  const { hostname, port } = new URL(server.url);
  for (let round = 0; round < 10; round++) {
    const socket = connect(Number(port), hostname);
    await new Promise<void>((resolve) => {
      socket.on('close', resolve).on('error', resolve);
      socket.on('connect', () => socket.write(request('CONNECT /')));
      setTimeout(() => socket.resetAndDestroy(), round);
    });
  }
  t.equal((await send(`${server.url}/livez`)).status, 200, 'an aborted CONNECT harms nobody');
});

t.test('HTTP-04 RFC 9110 §9.3.7: OPTIONS is 204 with Allow and costs nothing', async (t) => {
  for (const [path, allow] of Object.entries(routes)) {
    for (const [headers, body] of [
      [{}, ''],
      [{ 'Content-Type': 'application/json' }, '{'],
    ] as const) {
      const answer = await ask(`OPTIONS ${path}`, headers, body);
      t.strictSame([answer.status, answer.text], [204, ''], path);
      t.equal(answer.headers.get('allow'), allow, path);
    }
  }
  const again = request('OPTIONS /token', { Connection: 'keep-alive' });
  const answers = await exchange(limited.url, again.repeat(1000) + request('OPTIONS /token'));
  t.equal(answers.filter(({ status }) => status === 204).length, 1001);
  t.equal((await login(limited, c1)).status, 200);
});

t.test('HTTP-05 ASVS 4.1.4: nothing overrides the method', async (t) => {
  const names = ['X-HTTP-Method-Override', 'X-HTTP-Method', 'X-Method-Override'];
  for (const name of names) {
    const read = await ask(`POST ${METADATA}`, { ...FORM, [name]: 'GET' });
    hasFailed(t, read, 405, 'method_not_allowed', name);
    const written = await ask('GET /token', { ...FORM, [name]: 'POST' });
    hasFailed(t, written, 405, 'method_not_allowed', name);
    t.equal((await ask('POST /token', { ...FORM, [name]: 'DELETE' })).status, 200, name);
  }
  const parameter = complete({ _method: 'GET' });
  hasFailed(t, await ask(`POST ${METADATA}`, FORM, parameter), 405, 'method_not_allowed');
  hasFailed(t, await ask(`POST ${METADATA}?_method=GET`), 405, 'method_not_allowed');
  t.equal((await ask('POST /token?_method=GET', FORM, parameter)).status, 200);
});

t.test('HTTP-06 RFC 9700 §4.12: a trailing slash is 404 and never a redirect', async (t) => {
  for (const path of ['/token/', '/revoke/', '/introspect/', '/token/?a=b']) {
    const answer = await ask(`POST ${path}`);
    hasFailed(t, answer, 404, 'not_found', path);
    t.equal(answer.headers.get('location'), null, path);
  }
});

t.test('HTTP-07 ASVS 15.3.7: other spellings of a path have the same rules or none', async (t) => {
  const none = ['//token', '/TOKEN', '/Token', '/token;a=b', '/./token', '/x/../token'];
  for (const path of [...none, '/token%2F', '/token%3F', '/token%00', '/%2Ftoken', '/token.']) {
    hasFailed(t, await ask(`POST ${path}`), 404, 'not_found', path);
  }
  for (const path of ['/%74oken', 'http://other.example/token']) {
    const answer = await ask(`POST ${path}`);
    const names = ({ headers }: Answer) => [...headers.keys()].sort();
    t.equal(answer.status, 200, path);
    t.strictSame(names(answer), names(await ask('POST /token')), path);
    const wrong = await ask(`POST ${path}`, FORM, complete({ client_secret: 'wrong' }));
    isRefused(t, wrong, 'invalid_client', path);
    hasFailed(t, await ask(`GET ${path}`), 405, 'method_not_allowed', path);
  }
  const pair = ['/token', '/%74oken'].map((path) =>
    request(`POST ${path}`, { Connection: 'keep-alive' }),
  );
  const answers = await exchange(limited.url, pair.join('').repeat(400) + request('POST /token'));
  const isLimited = answers.some(({ status }) => status === 429);
  t.ok(isLimited, 'both draw on one limit');
});

t.test('HTTP-08 ASVS 4.1.2: what came over plain HTTP is refused, not redirected', async (t) => {
  const issuer = 'https://id.example';
  const secure = await startServer(t, { database, issuer, trustProxy: 1 });
  const told = (protocol: string, path: string, to = secure) =>
    path === '/token'
      ? ask(`POST ${path}`, { ...FORM, 'X-Forwarded-Proto': protocol }, complete(), to)
      : ask(`GET ${path}`, { 'X-Forwarded-Proto': protocol }, '', to);

  for (const protocol of ['http', 'HTTP', 'https, http', 'ws']) {
    for (const path of ['/token', '/revoke', METADATA, '/docs', '/docs/json', '/nowhere']) {
      const answer = await told(protocol, path);
      hasFailed(t, answer, 400, 'invalid_request', `${protocol} ${path}`);
      t.equal(answer.headers.get('location'), null);
    }
    t.equal((await told(protocol, '/livez')).status, 200, 'supervisors come without a proxy');
    t.equal((await told(protocol, '/readyz')).status, 200, 'supervisors come without a proxy');
  }
  for (const protocol of ['https', 'HTTPS', 'http, https']) {
    t.equal((await told(protocol, '/token')).status, 200, protocol);
  }
  t.equal((await ask('POST /token', FORM, complete(), secure)).status, 200, 'told nothing');

  const untrusting = await startServer(t, { database, issuer });
  t.equal((await told('http', '/token', untrusting)).status, 200, 'nobody is believed');
  const plain = await startServer(t, { database, issuer: 'http://id.example', trustProxy: 1 });
  t.equal((await told('http', '/token', plain)).status, 200, 'TLS is not required');
});

t.test('HTTP-09 ASVS 16.5.1: an unknown path is 404, whatever comes with it', async (t) => {
  const types = ['application/json', FORM['Content-Type'], 'text/plain', 'nonsense', ', ,'];
  const headers = [
    {},
    ...types.map((type) => ({ 'Content-Type': type })),
    { ...FORM, 'Content-Encoding': 'gzip' },
  ];
  for (const path of ['/marker', '/', '/.well-known/openid-configuration', '/token/marker']) {
    for (const method of ['GET', 'POST', 'DELETE', 'OPTIONS', 'TRACE']) {
      for (const header of headers) {
        const answer = await ask(`${method} ${path}`, header, '{"marker=%zz');
        hasFailed(t, answer, 404, 'not_found', `${method} ${path} ${JSON.stringify(header)}`);
      }
    }
  }
  const large = await ask('POST /marker', FORM, 'a'.repeat(20_000));
  hasFailed(t, large, 404, 'not_found', 'a large body is not read either');
});

/** RFC 9112 §7.1. */
const chunked = (...chunks: string[]): string =>
  [...chunks, ''].map((chunk) => `${chunk.length.toString(16)}\r\n${chunk}\r\n`).join('');

t.test('HTTP-10 RFC 9112 §7.1: a chunked body is read like any other', async (t) => {
  const body = complete().replace('alice', '%61lice');
  const head = request('POST /token', { ...FORM, 'Transfer-Encoding': 'chunked' });
  for (const chunks of [[body], [body.slice(0, 9), body.slice(9)], [...body]]) {
    t.equal((await exchangeOne(server.url, head + chunked(...chunks))).status, 200);
  }
});

t.test('HTTP-11 RFC 9110 §8.4: a coded body is 415 and never parsed as if plain', async (t) => {
  const plain = Buffer.from(complete());
  const codings = { gzip: gzipSync, deflate: deflateSync, br: brotliCompressSync };
  for (const [coding, compress] of Object.entries(codings)) {
    for (const body of [plain, compress(plain)]) {
      const answer = await send(`${server.url}/token`, {
        method: 'POST',
        headers: { ...FORM, 'content-encoding': coding },
        body,
      });
      hasFailed(t, answer, 415, 'invalid_request', coding);
    }
  }
  for (const coding of ['x-gzip', 'GZIP', 'identity, gzip', 'unknown']) {
    const answer = await ask('POST /token', { ...FORM, 'Content-Encoding': coding });
    hasFailed(t, answer, 415, 'invalid_request', coding);
  }
  const transfer = request('POST /token', { ...FORM, 'Transfer-Encoding': 'gzip, chunked' });
  const answer = await exchangeOne(server.url, transfer + chunked(complete()));
  hasFailed(t, answer, 415, 'invalid_request', 'Transfer-Encoding');
  const loud = request('POST /token', { ...FORM, 'Transfer-Encoding': 'Chunked' });
  t.equal((await exchangeOne(server.url, loud + chunked(complete()))).status, 200, 'Chunked');
  for (const coding of ['identity', 'Identity']) {
    const { status } = await ask('POST /token', { ...FORM, 'Content-Encoding': coding });
    t.equal(status, 200, coding);
  }
});

t.test('HTTP-12 RFC 6749 §5.1: answers are JSON whatever the client accepts', async (t) => {
  const accepted = ['text/html', 'application/xml', 'image/*;q=1', 'nonsense', ''];
  for (const accept of [...accepted, 'none']) {
    const headers = { ...FORM, ...(accept !== 'none' && { Accept: accept }) };
    const success = await ask('POST /token', headers);
    t.equal(success.status, 200, accept);
    t.equal(success.headers.get('content-type'), 'application/json; charset=utf-8', accept);
    isRefused(t, await ask('POST /token', headers, 'a=b'), 'invalid_request', accept);
  }
});

t.test('RFC 9110 §9.3.1: the content of a GET means nothing', async (t) => {
  const headers = { 'Content-Type': 'application/json', 'Content-Encoding': 'gzip' };
  for (const path of ['/livez', '/readyz', METADATA]) {
    t.equal((await ask(`GET ${path}`, headers, '{')).status, 200, path);
  }
});

t.test('RFC 9112 §3.2: a request without a Host is refused, unless it is HTTP/1.0', async (t) => {
  const body = complete();
  const withoutHost = request('POST /token', FORM, body).replace(/Host: .*\r\n/, '');
  hasFailed(t, await exchangeOne(server.url, withoutHost), 400, 'invalid_request');
  const old = withoutHost.replace('HTTP/1.1', 'HTTP/1.0');
  t.equal((await exchangeOne(server.url, old)).status, 200);
});

t.test('RFC 9110 §10.1.1: an expectation that nobody knows is ignored', async (t) => {
  t.equal((await ask('POST /token', { ...FORM, Expect: 'marker' })).status, 200);
});
