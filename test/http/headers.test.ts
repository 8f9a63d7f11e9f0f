/**
 * Headers and bodies of every answer, whoever writes it: a grant, the framework or Node.
 *
 *   Cache-Control: no-store, Pragma: no-cache          RFC 6749 §5.1
 *   {"error": …, "error_description": …}               RFC 6749 §5.2
 *     in %x20-21 / %x23-5B / %x5D-7E
 *   Retry-After with 429 and 503                       RFC 6585 §4, RFC 9110 §15.6.4
 */
import t, { type Test } from 'tap';
import { buildApp } from '../../src/app.ts';
import { loadConfig } from '../../src/config.ts';
import { listeningAddress } from '../../src/listening-address.ts';
import { type Answer, form, post, send } from '../support/client.ts';
import {
  ALICE_PASSWORD,
  createCast,
  introspect,
  login,
  refresh,
  revoke,
} from '../support/fixtures.ts';
import { startProxy } from '../support/proxy.ts';
import { exchange, exchangeOne, request } from '../support/raw.ts';
import { startServer } from '../support/server.ts';

const unlimited = { isRateLimitOn: false, requestTimeoutSeconds: 1 };
const server = await startServer(t, unlimited);
const { c1 } = await createCast(server);
const database = { url: server.databaseUrl, inspect: server.inspect };

const FORM = { 'Content-Type': 'application/x-www-form-urlencoded' };
const METADATA = '/.well-known/oauth-authorization-server';
const endpoints = ['/token', '/revoke', '/introspect'];

/** Stands in requests and in faults, and never in an answer. */
const MARKER = 'marker';
const FAULT = `${MARKER}: relation "token_family" does not exist at /srv/src/storage/orm.ts:1:1`;

type Refused = readonly [octets: string, status: number, error: string];

/** A request for each kind of failure that is the caller's. */
const refusedAt = (path: string): Refused[] => [
  [request(`POST ${path}`, FORM, `client_id=${MARKER}&client_id=b`), 400, 'invalid_request'],
  [request(`POST ${path}`, FORM, `${MARKER}=%zz`), 400, 'invalid_request'],
  [request(`POST ${path}%zz${MARKER}`, FORM), 400, 'invalid_request'],
  [request(`POST ${path}`, { 'Content-Length': MARKER }), 400, 'invalid_request'],
  [`${MARKER}\r\n\r\n`, 400, 'invalid_request'],
  [request(`POST ${path}`, FORM, `grant_type=x&client_id=${MARKER}`), 401, 'invalid_client'],
  [request(`POST ${path}/${MARKER}`, FORM, MARKER), 404, 'not_found'],
  [request(`GET ${path}?${MARKER}`), 405, 'method_not_allowed'],
  [request(`POST ${path}`, { ...FORM, 'Content-Length': '9' }), 408, 'invalid_request'],
  [request(`POST ${path}`, FORM, MARKER.repeat(5000)), 413, 'invalid_request'],
  [
    `${request(`POST ${path}`, { ...FORM, 'Transfer-Encoding': 'chunked' })}1;${MARKER.repeat(5000)}`,
    413,
    'invalid_request',
  ],
  [request(`POST ${path}`, { 'Content-Type': MARKER }, MARKER), 415, 'invalid_request'],
  [request(`POST ${path}`, { 'X-Large': MARKER.repeat(5000) }), 431, 'invalid_request'],
  [request(`PROPFIND ${path}`, { 'X-Marker': MARKER }), 501, 'not_implemented'],
  [request(`CONNECT ${path}`, { 'X-Marker': MARKER }), 501, 'not_implemented'],
];

interface Failure {
  readonly why: string;
  readonly answer: Answer;
  readonly status: number;
  readonly error: string;
}

const fail = async (url: string, [octets, status, error]: Refused): Promise<Failure> => ({
  why: `${status} to ${octets.slice(0, 40)}`,
  answer: await exchangeOne(url, octets),
  status,
  error,
});

const complete = form({
  grant_type: 'password',
  username: 'alice',
  password: ALICE_PASSWORD,
  client_id: c1.id,
  client_secret: c1.secret,
  token: MARKER,
});

/** A complete request to each endpoint, which all fail alike. */
const failAll = (url: string, status: number, error: string): Promise<Failure[]> =>
  Promise.all(
    endpoints.map((path) => fail(url, [request(`POST ${path}`, FORM, complete), status, error])),
  );

/** The application over a core that throws: no request is known that makes the real one do so. */
async function startFaulty(t: Test): Promise<{ url: string; logs: string[] }> {
  const logs: string[] = [];
  const config = loadConfig({ DATABASE_URL: 'postgres://none.invalid/none', RATE_LIMIT: 'off' });
  const throwing = () => Promise.reject(new Error(FAULT));
  const app = await buildApp({
    config,
    authorizationServer: {
      grantTypes: ['password'],
      token: throwing,
      revoke: throwing,
      introspect: throwing,
    },
    origins: { find: throwing },
    checkReadiness: throwing,
    logStream: { write: (line) => void logs.push(line) },
  });
  await app.listen({ host: config.host, port: 0 });
  t.teardown(() => app.close());
  return { url: `http://${listeningAddress(app, config.host)}`, logs };
}

/** More requests than a second may bring. */
async function failTooMany(t: Test, path: string): Promise<Failure> {
  const { url } = await startServer(t, { database });
  const burst = request(`POST ${path}`, { Connection: 'keep-alive' }).repeat(1000);
  const answers = await exchange(url, burst + request(`POST ${path}`));
  const answer = answers.find(({ status }) => status === 429) as Answer;
  return { why: `429 at ${path}`, answer, status: 429, error: 'temporarily_unavailable' };
}

/** The database goes away underneath. */
async function failWithoutDatabase(t: Test): Promise<Failure[]> {
  const proxy = await startProxy(t, server.databaseUrl);
  const through = { ...database, url: proxy.url };
  const { url } = await startServer(t, { ...unlimited, database: through });
  proxy.cut();
  const ready: Refused = [request('GET /readyz'), 503, 'temporarily_unavailable'];
  return [...(await failAll(url, 503, 'temporarily_unavailable')), await fail(url, ready)];
}

const faulty = await startFaulty(t);
const refused = endpoints.flatMap(refusedAt);
const failures: readonly Failure[] = [
  ...(await Promise.all(refused.map((each) => fail(server.url, each)))),
  ...(await failAll(faulty.url, 500, 'server_error')),
  await failTooMany(t, '/token'),
  await failTooMany(t, '/revoke'),
  ...(await failWithoutDatabase(t)),
];

t.test('HDR-01 RFC 6749 §5.1: nothing that the endpoints answer may be stored', async (t) => {
  const { body } = await login(server, c1);
  const successes = [
    await login(server, c1),
    await refresh(server, c1, body.refresh_token),
    await introspect(server, c1, body.access_token),
    await revoke(server, c1, body.access_token),
    await send(`${server.url}/token`, { method: 'OPTIONS' }),
  ];
  t.strictSame(
    successes.map(({ status }) => status),
    [200, 200, 200, 200, 204],
  );
  for (const { headers } of successes) t.equal(headers.get('cache-control'), 'no-store');
  for (const { answer, why } of failures) {
    t.equal(answer.headers.get('cache-control'), 'no-store', why);
  }
});

t.test('HDR-02 RFC 6749 §5.1: answers with tokens say Pragma: no-cache too', async (t) => {
  const first = await login(server, c1);
  const second = await refresh(server, c1, first.body.refresh_token);
  const retry = await refresh(server, c1, first.body.refresh_token);
  for (const { status, headers } of [first, second, retry]) {
    t.equal(status, 200);
    t.equal(headers.get('pragma'), 'no-cache');
    t.equal(headers.get('cache-control'), 'no-store');
  }
});

t.test('HDR-03 RFC 6749 §5.1: every body is JSON in UTF-8 and not to be sniffed', async (t) => {
  const { body } = await login(server, c1);
  const json = [
    await refresh(server, c1, body.refresh_token),
    await introspect(server, c1, body.access_token),
    ...(await Promise.all(
      [METADATA, '/livez', '/readyz', '/docs/json'].map((path) => send(server.url + path)),
    )),
    ...failures.map(({ answer }) => answer),
  ];
  for (const { headers, status } of json) {
    t.equal(headers.get('content-type'), 'application/json; charset=utf-8', `${status}`);
    t.equal(headers.get('x-content-type-options'), 'nosniff', `${status}`);
  }
  for (const path of ['/docs', '/docs/yaml', '/docs/static/swagger-ui.css']) {
    const { headers } = await send(server.url + path);
    t.ok(headers.get('content-type'), path);
    t.equal(headers.get('x-content-type-options'), 'nosniff', path);
  }
});

t.test('HDR-04 RFC 6749 §5.2: every failure is a JSON object with an error', async (t) => {
  for (const { why, answer, status, error } of failures) {
    t.equal(answer.status, status, why);
    const { error_description, ...others } = answer.body;
    t.strictSame(others, { error }, why);
    t.match(typeof error_description, /^(string|undefined)$/, why);
    const comeBack = answer.headers.get('retry-after');
    if (status === 429 || status === 503) t.match(comeBack, /^[1-9]\d*$/, why);
    else t.equal(comeBack, null, why);
    // RFC 9110 §6.6.1: also what Node refuses before there is a request.
    t.match(answer.headers.get('date'), / GMT$/, why);
  }
  const statuses = new Set(failures.map(({ status }) => status));
  t.strictSame([...statuses].sort(), [400, 401, 404, 405, 408, 413, 415, 429, 431, 500, 501, 503]);
});

/** RFC 6749 §5.2. */
const errorText = /^[\x20-\x21\x23-\x5b\x5d-\x7e]+$/;
const inside = /marker|select|token_family|relation|\/src|\.[tj]s\b|node_modules|FST_|HPE_/i;

/** Text that is nasty to repeat, in every parameter in turn. */
async function answersToNastyText(): Promise<Answer[]> {
  const texts = ['"', '\\', 'é', '\u0001', '\r\n', '<script>', "';--", '\u{1f511}', '%00'];
  const names = [...new URLSearchParams(complete).keys(), 'scope', 'refresh_token'];
  const answers = names.flatMap((name) =>
    texts.map((text) => {
      const parameters = { ...Object.fromEntries(new URLSearchParams(complete)) };
      return post(`${server.url}/token`, { ...parameters, [name]: MARKER + text });
    }),
  );
  return (await Promise.all(answers)).filter(({ status }) => status !== 200);
}

t.test('HDR-05 RFC 6749 §5.2: error texts stay inside the character set', async (t) => {
  const answers = [...(await answersToNastyText()), ...failures.map(({ answer }) => answer)];
  for (const { body } of answers) {
    for (const text of Object.values(body)) t.match(text, errorText);
  }
});

t.test('HDR-06 ASVS 16.5.1: a failure repeats nothing of the request or of us', async (t) => {
  const answers = [...(await answersToNastyText()), ...failures.map(({ answer }) => answer)];
  for (const { text, headers } of answers) {
    t.notMatch(text, inside);
    t.notMatch(JSON.stringify([...headers]), inside);
  }
});

t.test('HDR-07 ASVS 13.4.6: no header says what runs here', async (t) => {
  const pages = await Promise.all(
    ['/docs', '/docs/json', METADATA, '/livez'].map((path) => send(server.url + path)),
  );
  for (const { headers } of [await login(server, c1), ...pages, ...failures.map((f) => f.answer)]) {
    for (const name of ['server', 'x-powered-by', 'via']) t.equal(headers.get(name), null);
    t.notMatch(JSON.stringify([...headers]), /fastify|node|\d+\.\d+\.\d+/i);
  }
});

t.test('HDR-08 ASVS 14.3.2: answers with tokens can be neither validated nor kept', async (t) => {
  const conditions = { 'If-None-Match': '*', 'If-Modified-Since': new Date().toUTCString() };
  const octets = request('POST /token', { ...FORM, ...conditions }, complete);
  for (const answer of [await exchangeOne(server.url, octets), await login(server, c1)]) {
    t.equal(answer.status, 200);
    for (const name of ['etag', 'last-modified', 'set-cookie', 'expires']) {
      t.equal(answer.headers.get(name), null, name);
    }
  }
});

t.test('HDR-09 ASVS 3.4.1: over TLS every answer asks for TLS next time', async (t) => {
  const issuer = 'https://id.example';
  const { url } = await startServer(t, { ...unlimited, database, issuer });
  const answers = [
    await exchangeOne(url, request('POST /token', FORM, complete)),
    ...(await Promise.all(
      ['/docs', METADATA, '/livez', '/readyz'].map((path) => send(url + path)),
    )),
    ...(await Promise.all(refusedAt('/token').map((each) => fail(url, each)))).map((f) => f.answer),
  ];
  for (const { status, headers } of answers) {
    const expected = 'max-age=31536000; includeSubDomains';
    t.equal(headers.get('strict-transport-security'), expected, `${status}`);
  }
  for (const { answer, why } of failures) {
    t.equal(answer.headers.get('strict-transport-security'), null, `${why} over plain HTTP`);
  }
});

t.test('HDR-10 ASVS 3.4.3: pages are shut off from whatever is around them', async (t) => {
  const paths = ['/docs', '/docs/', '/docs/index.html', '/docs/static/index.html'];
  const answers = await Promise.all(paths.map((path) => send(server.url + path)));
  const pages = answers.filter(({ headers }) => headers.get('content-type')?.includes('html'));
  t.not(pages.length, 0);
  for (const { headers } of pages) {
    const policy = headers.get('content-security-policy')?.split(/; */) ?? [];
    for (const directive of ['object-src', 'base-uri', 'frame-ancestors']) {
      t.ok(policy.includes(`${directive} 'none'`), directive);
    }
    t.equal(headers.get('referrer-policy'), 'no-referrer');
    t.equal(headers.get('cross-origin-opener-policy'), 'same-origin');
  }
});

t.test('HDR-11 ASVS 16.5.4: a fault is 500 with a request id, and life goes on', async (t) => {
  const ids = new Set<string | null>();
  for (const path of [...endpoints, '/readyz']) {
    const octets =
      path === '/readyz' ? request(`GET ${path}`) : request(`POST ${path}`, FORM, complete);
    const { status, body, headers } = await exchangeOne(faulty.url, octets);
    t.equal(status, 500, path);
    t.strictSame(body, { error: 'server_error' }, path);
    t.strictSame(
      [...headers.keys()].sort(),
      [
        'cache-control',
        'connection',
        'content-length',
        'content-type',
        'date',
        // Who may read the answer depends on the origin, where apps in browsers ask.
        ...(path === '/token' || path === '/revoke' ? ['vary'] : []),
        'x-content-type-options',
        'x-request-id',
      ],
      path,
    );
    const id = headers.get('x-request-id');
    t.match(id, /^[0-9a-f-]{36}$/, path);
    const line = faulty.logs.find((each) => id !== null && each.includes(id));
    t.match(line, MARKER, 'the log has the fault under the same id');
    ids.add(id);
  }
  t.equal(ids.size, 4);
  t.equal((await send(`${faulty.url}/livez`)).status, 200);
  for (const { answer, status } of failures) {
    if (status !== 500) t.equal(answer.headers.get('x-request-id'), null, `${status}`);
  }
});
