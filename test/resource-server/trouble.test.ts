/** What a guarded API does when the authorization server is slow, gone, or says what it should not. */
import { once } from 'node:events';
import type { IncomingMessage, ServerResponse } from 'node:http';
import fastify from 'fastify';
import t, { type Test } from 'tap';
import {
  createTokenGuard,
  type GuardProblem,
  resourceServer,
  type TokenGuardOptions,
} from '../../src/resource-server/resource-server.ts';
import { createCast, login } from '../support/fixtures.ts';
import { matchEach } from '../support/match.ts';
import { startProxy } from '../support/proxy.ts';
import { startServer } from '../support/server.ts';
import { allApis, ask, bearer, fastifyApi, listen } from './apis.ts';

const server = await startServer(t);
const cast = await createCast(server);
const credentials = { clientId: cast.c1.id, clientSecret: cast.c1.secret };
const issue = async () => (await login(server, cast.c1)).body.access_token as string;

const unavailable = (retryAfter = '1') => ({
  status: 503,
  challenge: null,
  retryAfter,
  cacheControl: 'no-store',
  body: { error: 'temporarily_unavailable' },
});
const misconfigured = {
  status: 500,
  challenge: null,
  retryAfter: null,
  cacheControl: 'no-store',
  body: { error: 'server_error' },
};

/** Checks a made-up token against a server that answers whatever the test says. */
async function checkAgainst(
  t: Test,
  answer: (request: IncomingMessage, response: ServerResponse) => void,
  options: Partial<TokenGuardOptions> = {},
) {
  const problems: GuardProblem[] = [];
  const guard = createTokenGuard({
    introspectionEndpoint: `${await listen(t, answer)}/introspect`,
    ...credentials,
    onProblem: (problem) => problems.push(problem),
    ...options,
  });
  t.teardown(() => guard.close());
  const access = await guard.check({ headers: bearer('some.token') });
  return { access, problems };
}

const json = (response: ServerResponse, body: unknown, status = 200) =>
  response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body));

const active = { active: true, token_type: 'Bearer', scope: 'read' };

t.test('an authorization server that is gone is 503, and its return is noticed', async (t) => {
  const proxy = await startProxy(t, server.url);
  const token = await issue();
  const apis = await allApis(t, {
    introspectionEndpoint: new URL('/introspect', proxy.url),
    ...credentials,
  });
  for (const { framework, url } of apis) {
    t.equal((await ask(`${url}/notes`, bearer(token))).status, 200, framework);
  }
  proxy.cut();
  for (const { framework, url } of apis) {
    t.strictSame(await ask(`${url}/notes`, bearer(token)), unavailable(), framework);
  }
  proxy.restore();
  for (const { framework, url } of apis) {
    t.equal((await ask(`${url}/notes`, bearer(token))).status, 200, framework);
  }
});

t.test('whatever says that nobody knows is 503', async (t) => {
  const answers: Record<string, [(response: ServerResponse) => void, string?]> = {
    'a database that is down': [(response) => json(response, { error: 'x' }, 503)],
    'a limit': [(response) => json(response.setHeader('retry-after', '7'), {}, 429), '7'],
    'a limit of hours': [
      (response) => json(response.setHeader('retry-after', '9000'), {}, 429),
      '60',
    ],
    'a date to come back': [
      (response) => json(response.setHeader('retry-after', new Date().toUTCString()), {}, 503),
    ],
    'a bug': [(response) => json(response, {}, 500)],
    'a cut connection': [(response) => response.destroy()],
    'half an answer': [
      (response) => {
        response.writeHead(200, { 'content-type': 'application/json', 'content-length': '100' });
        response.write('{"active":true', () => response.destroy());
      },
    ],
    'an endless answer': [
      (response) => {
        response.writeHead(200, { 'content-type': 'application/json' });
        response.end(`{"active":true,"token_type":"Bearer","x":"${'x'.repeat(100_000)}"}`);
      },
    ],
    'text that is no JSON': [
      (response) => response.writeHead(200, { 'content-type': 'application/json' }).end('active'),
    ],
    'an array': [(response) => json(response, [active])],
    null: [(response) => json(response, null)],
    'no verdict': [(response) => json(response, { scope: 'read' })],
    'a verdict that is a text': [(response) => json(response, { ...active, active: 'true' })],
  };
  for (const [name, [answer, retryAfter = '1']] of Object.entries(answers)) {
    const { access, problems } = await checkAgainst(t, (_request, response) => answer(response));
    t.match(access, { outcome: 'refused', refusal: { status: 503 } }, name);
    t.match(access, { refusal: { headers: { 'retry-after': retryAfter } } }, name);
    matchEach(t, problems, [{ kind: 'unavailable', detail: String }], name);
    t.equal(problems.length, 1, name);
  }
});

t.test(
  'whatever only a change of configuration helps against is 500, with a line for the operator',
  async (t) => {
    const answers: [RegExp, (response: ServerResponse) => void][] = [
      [/credentials .*401/, (response) => json(response, { error: 'invalid_client' }, 401)],
      [/credentials .*403/, (response) => json(response, {}, 403)],
      [/status 404/, (response) => json(response, {}, 404)],
      [/status 201/, (response) => json(response, active, 201)],
      [/status 304/, (response) => json(response, active, 304)],
      [/JSON/, (response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<p>')],
      [/JSON/, (response) => response.writeHead(200).end(JSON.stringify(active))],
    ];
    for (const [detail, answer] of answers) {
      const { access, problems } = await checkAgainst(t, (_request, response) => answer(response));
      t.match(access, { outcome: 'refused', refusal: { status: 500 } }, detail.source);
      matchEach(t, problems, [{ kind: 'misconfigured', detail }], detail.source);
    }
    const lines: string[] = [];
    const wrong = { ...credentials, clientSecret: 'hcs_wrong' };
    const introspectionEndpoint = `${server.url}/introspect`;
    const token = await issue();
    const { url } = await fastifyApi(
      t,
      { introspectionEndpoint, ...wrong },
      { write: (line) => void lines.push(line) },
    );
    t.strictSame(await ask(`${url}/notes`, bearer(token)), misconfigured);
    const logged = lines.filter((line) => line.includes('introspection_failed'));
    matchEach(
      t,
      logged.map((line) => JSON.parse(line)),
      [{ level: 50, kind: 'misconfigured' }],
    );
    t.notMatch(lines.join(), /hcs_wrong/);
    t.notOk(lines.join().includes(token), 'no token in the log');
  },
);

t.test('a redirect is not followed, or the secret would go along', async (t) => {
  let isReached = false;
  const elsewhere = await listen(t, (_request, response) => {
    isReached = true;
    json(response, active);
  });
  for (const status of [301, 302, 307, 308]) {
    const { access } = await checkAgainst(t, (_request, response) =>
      json(response.setHeader('location', elsewhere), active, status),
    );
    t.match(access, { refusal: { status: 500 } }, String(status));
  }
  t.notOk(isReached);
});

t.test('active tokens of no use are refused', async (t) => {
  const answers: Record<string, object> = {
    'no type': { active: true, scope: 'read' },
    'another type': { ...active, token_type: 'refresh_token' },
    'an inactive one with claims': { ...active, active: false },
  };
  for (const [name, claims] of Object.entries(answers)) {
    const { access } = await checkAgainst(t, (_request, response) => json(response, claims));
    t.match(access, { refusal: { status: 401, body: { error: 'invalid_token' } } }, name);
  }
  const audiences: [unknown, boolean][] = [
    ['me', true],
    [['you', 'me'], true],
    [['you'], false],
    [undefined, false],
    [{ me: 'me' }, false],
    ['ME', false],
  ];
  for (const [aud, isMine] of audiences) {
    const { access } = await checkAgainst(
      t,
      (_request, response) => json(response, { ...active, aud }),
      { audience: 'me' },
    );
    t.equal(access.outcome, isMine ? 'granted' : 'refused', JSON.stringify(aud));
  }
});

t.test('a good token is told as the answer has it', async (t) => {
  const exp = Math.floor(Date.now() / 1000) + 600;
  const claims = { ...active, scope: ' read  write ', client_id: 'app', sub: 'me', exp };
  const { access } = await checkAgainst(t, (_request, response) => json(response, claims));
  t.strictSame(access, {
    outcome: 'granted',
    token: {
      scope: new Set(['read', 'write']),
      clientId: 'app',
      subject: 'me',
      audience: [],
      expiresAt: new Date(exp * 1000),
      claims,
    },
  });
});

t.test('the question is what RFC 7662 §2.1 and RFC 6749 §2.3.1 say', async (t) => {
  let seen: unknown;
  const { access } = await checkAgainst(
    t,
    async (request, response) => {
      let body = '';
      for await (const chunk of request) body += chunk;
      const { method, url, headers } = request;
      const { authorization, accept } = headers;
      seen = { method, url, authorization, accept, type: headers['content-type'], body };
      json(response, active);
    },
    { clientId: 'an id:é', clientSecret: 'a+b %' },
  );
  t.equal(access.outcome, 'granted');
  t.strictSame(seen, {
    method: 'POST',
    url: '/introspect',
    authorization: `Basic ${Buffer.from('an+id%3A%C3%A9:a%2Bb+%25').toString('base64')}`,
    accept: 'application/json',
    type: 'application/x-www-form-urlencoded',
    body: 'token=some.token&token_type_hint=access_token',
  });
});

t.test('a server that does not answer in time is 503, and is let go', async (t) => {
  let isLetGo: () => void;
  const letGo = new Promise<void>((resolve) => {
    isLetGo = resolve;
  });
  const { access, problems } = await checkAgainst(
    t,
    (_request, response) => response.on('close', () => isLetGo()),
    { timeoutSeconds: 0.3 },
  );
  t.match(access, { refusal: { status: 503 } });
  t.strictSame(problems, [{ kind: 'unavailable', detail: 'no answer in time' }]);
  await letGo;
});

t.test('connections are kept, and there are no more than allowed', async (t) => {
  const connections = new Set<object>();
  const introspectionEndpoint = await listen(t, ({ socket }, response) => {
    connections.add(socket);
    setTimeout(() => json(response, active), 5);
  });
  const guard = createTokenGuard({
    introspectionEndpoint,
    ...credentials,
    maximumConnections: 4,
  });
  for (let round = 0; round < 5; round++) {
    const checks = Array.from({ length: 20 }, (_, n) =>
      guard.check({ headers: bearer(`token-${n}`) }),
    );
    const accesses = await Promise.all(checks);
    t.ok(accesses.every(({ outcome }) => outcome === 'granted'));
  }
  t.equal(connections.size, 4);
  guard.close();
});

t.test('a connection that the server closed while it was idle is no trouble', async (t) => {
  const used = new WeakSet<object>();
  const introspectionEndpoint = await listen(t, (request, response) => {
    // One answer a connection, without saying so, as a restart or a proxy does it.
    if (used.has(request.socket)) request.socket.resetAndDestroy();
    else json(response, active);
    used.add(request.socket);
  });
  const guard = createTokenGuard({
    introspectionEndpoint,
    ...credentials,
    maximumConnections: 1,
  });
  t.teardown(() => guard.close());
  for (let n = 0; n < 10; n++) {
    const access = await guard.check({ headers: bearer('some.token') });
    t.equal(access.outcome, 'granted');
  }
});

t.test('nor are many of them, when a network has forgotten all', async (t) => {
  const used = new WeakSet<object>();
  let isForgotten = false;
  const introspectionEndpoint = await listen(t, (request, response) => {
    if (isForgotten && used.has(request.socket)) request.socket.resetAndDestroy();
    else setTimeout(() => json(response, active), 20);
    used.add(request.socket);
  });
  const guard = createTokenGuard({ introspectionEndpoint, ...credentials });
  t.teardown(() => guard.close());
  const check = () => guard.check({ headers: bearer('some.token') });
  await Promise.all(Array.from({ length: 8 }, check));
  isForgotten = true;
  t.equal((await check()).outcome, 'granted');
});

t.test('a refusal that comes after somebody else has answered is dropped', async (t) => {
  const guard = createTokenGuard({
    introspectionEndpoint: await listen(t, () => {}),
    ...credentials,
    timeoutSeconds: 0.2,
    onProblem: () => {},
  });
  t.teardown(() => guard.close());
  let isPassed = false;
  const middleware = guard.requireScope('read');
  const url = await listen(t, (request, response) => {
    middleware(request, response, () => {
      isPassed = true;
    });
    response.writeHead(504).end();
  });
  t.equal((await fetch(url, { headers: bearer('some.token') })).status, 504);
  // An unhandled rejection would end this process.
  await new Promise((resolve) => setTimeout(resolve, 400));
  t.notOk(isPassed);
});

t.test('without anybody to tell, trouble is a warning of the process', async (t) => {
  const warned = once(process, 'warning');
  const endpoint = await listen(t, (_request, response) => json(response, {}, 401));
  const guard = createTokenGuard({ introspectionEndpoint: endpoint, ...credentials });
  t.teardown(() => guard.close());
  await guard.check({ headers: bearer('some.token') });
  matchEach(t, await warned, [{ message: /^introspection failed, misconfigured: .+/ }]);
});

t.test('a Fastify app logs passing trouble as a warning, or tells its own listener', async (t) => {
  const introspectionEndpoint = await listen(t, (_request, response) => json(response, {}, 503));
  const options = { introspectionEndpoint, ...credentials };
  const lines: string[] = [];
  const stream = { write: (line: string) => void lines.push(line) };
  const logged = () => lines.filter((line) => line.includes('introspection_failed'));
  const logging = await fastifyApi(t, options, stream);
  await ask(`${logging.url}/notes`, bearer('some.token'));
  matchEach(
    t,
    logged().map((line) => JSON.parse(line)),
    [{ level: 40, kind: 'unavailable' }],
  );
  const problems: GuardProblem[] = [];
  const onProblem = (problem: GuardProblem) => void problems.push(problem);
  const telling = await fastifyApi(t, { ...options, onProblem }, stream);
  await ask(`${telling.url}/notes`, bearer('some.token'));
  matchEach(t, problems, [{ kind: 'unavailable' }]);
  t.equal(logged().length, 1);
});

t.test('a Fastify app that closes lets go of the authorization server', async (t) => {
  let closed: Promise<unknown> | undefined;
  const introspectionEndpoint = await listen(t, ({ socket }, response) => {
    closed = once(socket, 'close');
    json(response, active);
  });
  const app = fastify();
  await app.register(resourceServer, { introspectionEndpoint, ...credentials });
  app.get('/', { onRequest: app.requireScope() }, async () => 'passed');
  const { body } = await app.inject({ url: '/', headers: bearer('some.token') });
  t.equal(body, 'passed');
  await app.close();
  // The authorization server itself ends an idle connection after five seconds.
  const patience = new Promise((resolve) => setTimeout(resolve, 2000, 'still open'));
  t.not(await Promise.race([closed, patience]), 'still open');
});

t.test('options that give the secret away or cannot work are refused at once', async (t) => {
  const create = (introspectionEndpoint: string, options: Partial<TokenGuardOptions> = {}) =>
    createTokenGuard({ introspectionEndpoint, ...credentials, ...options }).close();
  t.throws(() => create('http://auth.example/introspect'), TypeError);
  t.throws(() => create('http://127.0.0.1.evil.example/introspect'), TypeError);
  t.throws(() => create('ftp://auth.example/introspect'), TypeError);
  for (const credentials of ['a:b', 'a', ':b']) {
    t.throws(() => create(`https://${credentials}@auth.example/introspect`), /credentials/);
  }
  t.throws(() => create('/introspect'), TypeError);
  t.throws(() => create('https://auth.example/introspect', { realm: 'a"b' }), TypeError);
  t.throws(
    () => create('https://auth.example/introspect', { cache: { maximumAgeSeconds: 0 } }),
    TypeError,
  );
  for (const maximumEntries of [0, -1, 1.5, Number.NaN]) {
    const cache = { maximumAgeSeconds: 1, maximumEntries };
    t.throws(() => create('https://auth.example/introspect', { cache }), {
      name: 'TypeError',
      message: /maximumEntries/,
    });
  }
  const guard = createTokenGuard({ introspectionEndpoint: server.url, ...credentials });
  t.throws(() => guard.requireScope('a b'), TypeError);
  t.throws(() => guard.requireScope('"'), TypeError);
  guard.close();
  const app = fastify();
  t.teardown(() => app.close());
  await app.register(resourceServer, { introspectionEndpoint: server.url, ...credentials });
  t.throws(() => app.requireScope('a b'), TypeError);
  for (const endpoint of ['https://auth.example/i', 'http://localhost:1/i', 'http://[::1]:1/i']) {
    t.doesNotThrow(() => create(endpoint), endpoint);
  }
  t.doesNotThrow(() => create('http://heirloom:3000/introspect', { allowPlainHttp: true }));
});
