/**
 * Cross-origin requests, Fetch §3.2:
 *
 *   preflight   OPTIONS with Origin, Access-Control-Request-Method, Access-Control-Request-Headers
 *   answers     Access-Control-Allow-Origin, -Allow-Credentials, -Allow-Methods, -Allow-Headers, -Max-Age,
 *               -Expose-Headers
 */
import t, { type Test } from 'tap';
import { browserLogin, ownApp } from '../support/browser.ts';
import { type Answer, basic, form, post, send } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import { ALICE_PASSWORD, createCast } from '../support/fixtures.ts';
import { startProxy } from '../support/proxy.ts';
import { exchange, request } from '../support/raw.ts';
import { startServer } from '../support/server.ts';

const database = await createTestDatabase(t);
const server = await startServer(t, { database, isRateLimitOn: false });
const { url } = server;
const { clients } = server.dependencies;
const { c1 } = await createCast(server);

const BODY_APP = 'https://spa.example.org';
const COOKIE_APP = ownApp['origin'] as string;
const grants = {
  clientType: 'public',
  grantTypes: ['password', 'refresh_token'],
  scope: ['read'],
} as const;
await clients.create({ clientId: 'spa', ...grants, origins: [BODY_APP, 'https://b.example'] });
await clients.create({ clientId: 'other', ...grants, origins: ['https://other.example'] });
await clients.create({ clientId: 'web', ...grants, origins: [COOKIE_APP], delivery: 'cookie' });

const FORM = { 'content-type': 'application/x-www-form-urlencoded' };
const endpoints = ['/token', '/revoke'];

const preflight = (origin: string, path = '/token', at = url): Promise<Answer> =>
  send(at + path, {
    method: 'OPTIONS',
    headers: {
      origin,
      'access-control-request-method': 'POST',
      'access-control-request-headers': 'content-type,x-heirloom-csrf',
    },
  });

const logIn = (clientId: string, headers: Record<string, string>): Promise<Answer> =>
  post(
    `${url}/token`,
    { grant_type: 'password', client_id: clientId, username: 'alice', password: ALICE_PASSWORD },
    headers,
  );

const corsHeaders = ({ headers }: Answer): Record<string, string> =>
  Object.fromEntries([...headers].filter(([name]) => name.startsWith('access-control-')));

function isClosed(t: Test, answer: Answer, why: string): void {
  t.strictSame(corsHeaders(answer), {}, why);
}

function isOpenTo(t: Test, answer: Answer, origin: string, why: string): void {
  const { headers } = answer;
  t.equal(headers.get('access-control-allow-origin'), origin, why);
  t.match(headers.get('vary'), /(^|, )Origin($|,)/, why);
}

t.test(
  'COR-01 BBA 6.3.3.4: a preflight of a registered origin says what may be sent',
  async (t) => {
    for (const path of endpoints) {
      for (const [origin, credentials] of [
        [BODY_APP, {}],
        [COOKIE_APP, { 'access-control-allow-credentials': 'true' }],
      ] as const) {
        const answer = await preflight(origin, path);
        t.equal(answer.status, 204);
        t.equal(answer.text, '');
        t.equal(answer.headers.get('allow'), 'POST, OPTIONS');
        t.equal(answer.headers.get('vary'), 'Origin');
        t.strictSame(corsHeaders(answer), {
          'access-control-allow-origin': origin,
          'access-control-allow-methods': 'POST',
          'access-control-allow-headers': 'authorization, content-type, x-heirloom-csrf',
          'access-control-max-age': '600',
          ...credentials,
        });
      }
    }
  },
);

t.test('COR-02 ASVS 3.4.2: an origin that nobody registered learns nothing', async (t) => {
  for (const path of endpoints) {
    const asked = await preflight('https://evil.example', path);
    t.equal(asked.status, 204);
    isClosed(t, asked, path);
    t.equal(asked.headers.get('vary'), 'Origin');
  }
  const answer = await logIn('spa', { origin: 'https://evil.example' });
  t.equal(answer.status, 200, 'CORS is about reading');
  isClosed(t, answer, 'actual');
  t.equal(answer.headers.get('vary'), 'Origin');
  const refused = await logIn('nobody', { origin: 'https://evil.example' });
  t.equal(refused.status, 401);
  isClosed(t, refused, 'failure');
});

t.test('COR-03 oidc-provider `does not allow opaque origins`: null is nobody', async (t) => {
  const { rowCount } = await server.inspect.query(
    `insert into client (client_id, client_type, grant_types, scope, introspection_right, audience,
       origins, delivery)
     values ('sandbox', 'public', '{password}', '{read}', 'none', '{}', '{"null"}', 'body')`,
  );
  t.equal(rowCount, 1, 'even if it got into the table');
  isClosed(t, await preflight('null'), 'preflight');
  isClosed(t, await logIn('spa', { origin: 'null' }), 'actual');
  isClosed(t, await logIn('nobody', { origin: 'null' }), 'failure');
  await t.rejects(
    clients.create({ clientId: 'nil', ...grants, origins: ['null'] }),
    /not an origin/,
  );
});

t.test('COR-04 ASVS 3.4.2: credentials are for cookie mode, and never for everybody', async (t) => {
  const answers = [
    await preflight(COOKIE_APP),
    await browserLogin(url, 'web'),
    await preflight(BODY_APP),
    await logIn('spa', { origin: BODY_APP }),
    await send(`${url}/.well-known/oauth-authorization-server`, {
      headers: { origin: COOKIE_APP },
    }),
  ];
  t.strictSame(
    answers.map(({ headers }) => [
      headers.get('access-control-allow-origin'),
      headers.get('access-control-allow-credentials'),
    ]),
    [
      [COOKIE_APP, 'true'],
      [COOKIE_APP, 'true'],
      [BODY_APP, null],
      [BODY_APP, null],
      ['*', null],
    ],
  );
});

t.test('COR-05 ASVS 3.4.2: an origin that looks like a registered one is another', async (t) => {
  const lookalikes = [
    'https://app.example.com.evil.io',
    'https://evilapp.example.com',
    'https://sub.app.example.com',
    'https://example.com',
    'http://app.example.com',
    'https://app.example.com:8443',
    'https://app.example.com:443',
    'https://APP.example.com',
    'https://app.example.com/',
    'https://app.example.com, https://evil.example',
    'https://app.example.com%60.evil.io',
    '*',
  ];
  for (const origin of lookalikes) {
    isClosed(t, await preflight(origin), `preflight of ${origin}`);
    isClosed(t, await browserLogin(url, 'web', { ...ownApp, origin }), origin);
  }
});

/** Failures of every kind, by status. */
async function failures(t: Test): Promise<Record<number, Answer>> {
  const origin = BODY_APP;
  const path = `${url}/token`;
  const raw = async (headers: Record<string, string>, body: string) =>
    send(path, { method: 'POST', headers: { origin, ...headers }, body });
  const limited = await startServer(t, { database });
  const burst = request('POST /token', { Origin: origin, Connection: 'keep-alive' }).repeat(1000);
  const answers = await exchange(limited.url, burst + request('POST /token', { Origin: origin }));

  const proxy = await startProxy(t, database.url);
  const unlucky = await startServer(t, {
    database: { ...database, url: proxy.url },
    isRateLimitOn: false,
  });
  isOpenTo(t, await preflight(origin, '/token', unlucky.url), origin, 'while the database answers');
  proxy.cut();
  const refresh = { grant_type: 'refresh_token', client_id: 'spa', refresh_token: 'x' };
  return {
    400: await post(path, { grant_type: 'x', client_id: 'spa' }, { origin }),
    401: await post(path, { grant_type: 'password' }, { origin, ...basic('spa', 'x') }),
    405: await send(path, { method: 'PUT', headers: { origin } }),
    413: await raw(FORM, `a=${'x'.repeat(20_000)}`),
    415: await raw({ 'content-type': 'application/json' }, '{}'),
    429: answers.find(({ status }) => status === 429) as Answer,
    503: await post(`${unlucky.url}/token`, refresh, { origin }),
  };
}

t.test(
  'COR-06 oidc-provider "token (error) has cors open": an app can read why it was refused',
  async (t) => {
    for (const [status, answer] of Object.entries(await failures(t))) {
      t.equal(answer.status, Number(status));
      isOpenTo(t, answer, BODY_APP, status);
      t.type(answer.body.error, 'string');
    }
    const refused = await browserLogin(url, 'web', { origin: COOKIE_APP });
    t.equal(refused.status, 403);
    isOpenTo(t, refused, COOKIE_APP, '403');
  },
);

t.test('an origin that was never seen while the database answered is not guessed', async (t) => {
  const proxy = await startProxy(t, database.url);
  const reached = { ...database, url: proxy.url };
  const unlucky = await startServer(t, { database: reached, isRateLimitOn: false });
  proxy.cut();
  const answer = await preflight(BODY_APP, '/token', unlucky.url);
  t.equal(answer.status, 204);
  isClosed(t, answer, 'nothing is known');
  proxy.restore();
  isOpenTo(t, await preflight(BODY_APP, '/token', unlucky.url), BODY_APP, 'as soon as it is');
});

t.test('an origin counts as long as one enabled client has it', async (t) => {
  const origin = 'https://brief.example';
  isClosed(t, await preflight(origin), 'before');
  await clients.create({ clientId: 'brief', ...grants, origins: [origin] });
  isOpenTo(t, await preflight(origin), origin, 'from the first preflight on');
  await clients.disable('brief');
  isClosed(t, await preflight(origin), 'disabled');
  await clients.enable('brief');
  isOpenTo(t, await preflight(origin), origin, 'enabled');
  await clients.update('brief', { origins: [] });
  isClosed(t, await preflight(origin), 'taken off');
  await clients.update('brief', { origins: [origin] });
  await clients.delete('brief');
  isClosed(t, await preflight(origin), 'deleted');
});

t.test(
  'a failed login of a browser app is 400, at which no browser asks for a password',
  async (t) => {
    const parameters = { grant_type: 'refresh_token', client_id: 'spa', client_secret: 'x' };
    const answer = await post(`${url}/token`, parameters, { origin: BODY_APP });
    t.equal(answer.status, 400);
    t.equal(answer.body.error, 'invalid_client');
    t.equal(answer.headers.get('www-authenticate'), null);
    const other = await post(`${url}/token`, parameters, { origin: 'https://evil.example' });
    t.equal(other.status, 401);
    t.equal(other.headers.get('www-authenticate'), 'Basic realm="heirloom"');
  },
);

t.test('COR-07 Fetch: an app can read when to come back and how much is left', async (t) => {
  const limited = await startServer(t, { database });
  const headers = { origin: BODY_APP };
  const answer = await post(`${limited.url}/token`, { grant_type: 'x', client_id: 'spa' }, headers);
  const exposed = answer.headers.get('access-control-expose-headers')?.toLowerCase().split(', ');
  t.strictSame(exposed?.slice(0, 2), ['retry-after', 'www-authenticate']);
  const limits = [...answer.headers.keys()].filter((name) => name.startsWith('ratelimit'));
  t.not(limits.length, 0);
  for (const name of limits) t.ok(exposed?.includes(name), name);
});

t.test('COR-08 BBA: every page may read the metadata', async (t) => {
  const path = `${url}/.well-known/oauth-authorization-server`;
  for (const origin of [BODY_APP, 'https://evil.example', 'null']) {
    const { headers, status } = await send(path, { headers: { origin } });
    t.equal(status, 200);
    t.equal(headers.get('access-control-allow-origin'), '*');
  }
});

t.test('COR-09 RFC 7662 §4: no page introspects', async (t) => {
  isClosed(t, await preflight(BODY_APP, '/introspect'), 'preflight');
  const headers = { origin: BODY_APP, ...basic(c1.id, c1.secret) };
  const answer = await post(`${url}/introspect`, { token: 'x' }, headers);
  t.equal(answer.status, 200);
  isClosed(t, answer, 'actual');
  const refused = await send(`${url}/introspect`, { method: 'POST', headers, body: form({}) });
  isClosed(t, refused, 'failure');
});

t.test(
  'COR-10 BBA 6.3.3.4 last paragraph: an origin reads answers to its own client only',
  async (t) => {
    isOpenTo(t, await logIn('spa', { origin: BODY_APP }), BODY_APP, 'its own');
    isOpenTo(t, await logIn('spa', { origin: 'https://b.example' }), 'https://b.example', 'too');
    const secretOf: Record<string, Record<string, string>> = { C1: basic(c1.id, c1.secret) };
    for (const clientId of ['other', 'web', c1.id]) {
      const headers = { origin: BODY_APP, ...secretOf[clientId] };
      const answer = await logIn(clientId, headers);
      t.not(answer.status, 401, 'is that client');
      isClosed(t, answer, clientId);
      const body = { token: 'x', client_id: clientId };
      isClosed(t, await post(`${url}/revoke`, body, headers), `revoke of ${clientId}`);
    }
  },
);

t.test('COR-11 RFC 9700 §2.6 MUST NOT: there is no /authorize that could be open', async (t) => {
  for (const method of ['OPTIONS', 'GET', 'POST']) {
    const answer = await send(`${url}/authorize`, { method, headers: { origin: BODY_APP } });
    t.equal(answer.status, 404, method);
    isClosed(t, answer, method);
  }
});
