/** Requests to APIs through the token client: its `fetch`, and an axios instance. */
import { getEventListeners } from 'node:events';
import type { IncomingMessage, RequestListener } from 'node:http';
import { Readable } from 'node:stream';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import axios, { type AxiosInstance } from 'axios';
import t, { type Test } from 'tap';
import { SignedOutError, UnavailableError } from '../../src/client/client.ts';
import { createTokenGuard } from '../../src/resource-server/resource-server.ts';
import { listen } from '../resource-server/apis.ts';
import { ALICE_PASSWORD, createCast, revoke } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';
import { pause, rejection, startClient, type TestClient } from './network.ts';

const server = await startServer(t, { isRateLimitOn: false });
const { p1 } = await createCast(server);
const dave = { username: 'dave', password: 'a phrase that only dave knows' };
await server.dependencies.resourceOwners.create(dave.username, dave.password);
const api = await server.dependencies.clients.create({
  clientId: 'api',
  clientType: 'confidential',
  introspectionRight: 'any',
});
const guard = createTokenGuard({
  introspectionEndpoint: `${server.url}/introspect`,
  clientId: 'api',
  clientSecret: api.clientSecret as string,
  timeoutSeconds: 60,
});
t.teardown(() => guard.close());

interface Echo {
  readonly method: string;
  readonly authorization: string | undefined;
  readonly body: string;
}

/** Answers what it was asked; behind the guard, if there is one. */
async function echo(t: Test, isGuarded = true): Promise<{ url: string; asked: Echo[] }> {
  const asked: Echo[] = [];
  const answer: RequestListener = async (request, response) => {
    const { method = '', headers } = request;
    const body = await read(request);
    const { authorization } = headers;
    asked.push({ method, authorization, body });
    response.setHeader('content-type', 'application/json');
    const { pathname } = new URL(request.url ?? '', 'http://localhost');
    if (pathname === '/refuses') response.writeHead(401);
    const isEmpty = pathname.endsWith('/nothing');
    const serve = () => response.end(isEmpty ? '' : JSON.stringify({ method, body }));
    if (isGuarded && pathname !== '/refuses') guard.requireScope()(request, response, serve);
    else serve();
  };
  return { url: await listen(t, answer), asked };
}

async function read(request: IncomingMessage): Promise<string> {
  let body = '';
  for await (const chunk of request) body += chunk;
  return body;
}

const login = async (client: TestClient) => {
  await client.login({ username: 'alice', password: ALICE_PASSWORD });
  return client.accessToken();
};

const { fetch: plainFetch } = globalThis;
const refreshes = (client: TestClient) => client.network.count('/token refresh_token');
const posts = {
  fetch: (client: TestClient, url: string) => client.fetch(url, { method: 'POST', body: 'x' }),
  axios: (client: TestClient, url: string) => {
    const http = axios.create();
    client.attachToAxios(http);
    return http.post(url, 'x');
  },
};

t.test('an API gets the token, any other host does not', async (t) => {
  const own = await echo(t);
  const foreign = await echo(t, false);
  const client = startClient(t, server, { apiOrigins: [own.url], fetch: plainFetch });
  const token = await login(client);
  t.equal((await client.fetch(`${own.url}/notes`)).status, 200);
  t.equal(own.asked[0]?.authorization, `Bearer ${token}`);
  t.equal((await client.fetch(`${foreign.url}/notes`)).status, 200);
  t.equal(foreign.asked[0]?.authorization, undefined);

  const redirecting = await listen(t, (_request, response) => {
    response.writeHead(307, { location: `${foreign.url}/` }).end();
  });
  const another = startClient(t, server, { apiOrigins: [redirecting], fetch: plainFetch });
  await login(another);
  await another.fetch(redirecting);
  t.equal(foreign.asked[1]?.authorization, undefined, 'nor after a redirect');
});

t.test('a 401 is answered by a new token and the same request, once', async (t) => {
  const { url, asked } = await echo(t);
  const client = startClient(t, server, { apiOrigins: [url] });
  const token = await login(client);
  await revoke(server, p1, token);
  const response = await client.fetch(`${url}/notes`, { method: 'PUT', body: 'a note' });
  t.strictSame(await response.json(), { method: 'PUT', body: 'a note' });
  t.equal(asked.length, 2);
  t.not(asked[0]?.authorization, asked[1]?.authorization);
  t.equal(refreshes(client), 1);

  await revoke(server, p1, await client.accessToken());
  const statuses = await Promise.all(
    Array.from({ length: 10 }, async (_, n) => {
      const each = await client.fetch(`${url}/${n}`);
      return each.status;
    }),
  );
  t.strictSame(new Set(statuses), new Set([200]));
  t.equal(refreshes(client), 2, 'one refresh for all of them');
});

t.test('every kind of body that can be sent again is', async (t) => {
  const { url } = await echo(t);
  const client = startClient(t, server, { apiOrigins: [url], fetch: plainFetch });
  const bodies: Record<string, () => [string | URL | Request, RequestInit?]> = {
    text: () => [url, { method: 'POST', body: 'x=1' }],
    form: () => [new URL(url), { method: 'POST', body: new URLSearchParams({ x: '1' }) }],
    bytes: () => [url, { method: 'POST', body: new TextEncoder().encode('x=1') }],
    blob: () => [url, { method: 'POST', body: new Blob(['x=1']) }],
    'a request': () => [new Request(url, { method: 'POST', body: 'x=1' })],
  };
  for (const [name, build] of Object.entries(bodies)) {
    await revoke(server, p1, await login(client));
    const response = await client.fetch(...build());
    t.match(await response.json(), { body: 'x=1' }, name);
  }
  await revoke(server, p1, await login(client));
  const stream = new Blob(['x=1']).stream();
  const init = { method: 'POST', body: stream, duplex: 'half' } as RequestInit;
  t.equal((await client.fetch(url, init)).status, 401, 'a stream is spent');
});

t.test('an API that refuses every token causes one refresh, not one per request', async (t) => {
  const { url, asked } = await echo(t);
  const client = startClient(t, server, { apiOrigins: [url] });
  await login(client);
  for (let n = 0; n < 5; n++) t.equal((await client.fetch(`${url}/refuses`)).status, 401);
  t.equal(refreshes(client), 1);
  t.equal(asked.length, 6);
  await revoke(server, p1, await client.accessToken());
  t.equal((await client.fetch(`${url}/notes`)).status, 401, 'which the origin has to bear');
});

t.test('a request that finds nobody signed in is rejected, and sent to nobody', async (t) => {
  const { url, asked } = await echo(t);
  const client = startClient(t, server, { apiOrigins: [url] });
  t.type(await rejection(client.fetch(url)), SignedOutError);
  await login(client);
  await client.logout();
  t.type(await rejection(client.fetch(url)), SignedOutError);
  t.equal(asked.length, 0);
});

t.test('a request during trouble is rejected, and the session goes on', async (t) => {
  const { url } = await echo(t);
  const client = startClient(t, server, { apiOrigins: [url], patienceSeconds: 0.2 });
  client.network.expiresInSeconds = 0;
  await client.login({ username: 'alice', password: ALICE_PASSWORD });
  client.network.loss = ({ what }) => (what.startsWith('/token') ? 'before' : undefined);
  t.type(await rejection(client.fetch(url)), UnavailableError);
  t.ok(client.isSignedIn);
});

t.test('whoever aborts does not wait, and stops nobody else', async (t) => {
  const { url } = await echo(t);
  const client = startClient(t, server, { apiOrigins: [url] });
  client.network.expiresInSeconds = 0;
  await client.login({ username: 'alice', password: ALICE_PASSWORD });
  client.network.expiresInSeconds = 60;
  const { promise: held, resolve: release } = Promise.withResolvers<undefined>();
  client.network.loss = ({ what }) => (what.startsWith('/token') ? held : undefined);
  const controller = new AbortController();
  const leaving = rejection(client.fetch(url, { signal: controller.signal }));
  const staying = client.fetch(url);
  controller.abort();
  t.match(await leaving, { name: 'AbortError' });
  release(undefined);
  t.equal((await staying).status, 200);
  t.equal(refreshes(client), 1);
  const gone = client.fetch(url, { signal: AbortSignal.abort() });
  t.match(await rejection(gone), { name: 'AbortError' });
});

t.test(
  'an app can leave a request that hangs, however much garbage was collected since',
  async (t) => {
    setFlagsFromString('--expose-gc');
    const collectGarbage: () => void = runInNewContext('gc');
    let refusals = 0;
    const url = await listen(t, (request, response) => {
      if (request.url === '/refuses-once' && refusals++ === 0) response.writeHead(401).end();
    });
    const client = startClient(t, server, { apiOrigins: [url], fetch: plainFetch });
    await login(client);
    const elsewhere = startClient(t, server, { fetch: plainFetch });
    const requests: [string, TestClient, string][] = [
      ['to an API', client, `${url}/hangs`],
      ['to anywhere else', elsewhere, `${url}/hangs`],
      ['repeated with another token', client, `${url}/refuses-once`],
    ];
    for (const [what, { fetch }, target] of requests) {
      const controller = new AbortController();
      const hanging = rejection(fetch(target, { signal: controller.signal }));
      for (let n = 0; n < 8; n++) {
        await pause(50);
        collectGarbage();
      }
      controller.abort();
      const outcome = await Promise.race([hanging, pause(2000)]);
      t.match(outcome, { name: 'AbortError' }, what);
    }
  },
);

t.test('a request that can be aborted keeps what it says of its referrer', async (t) => {
  const { url } = await echo(t);
  const asked: Request[] = [];
  const client = startClient(t, server, {
    apiOrigins: [url],
    fetch: async (input, init) => {
      asked.push(new Request(input, init));
      return plainFetch(input, init);
    },
  });
  await login(client);
  const { signal } = new AbortController();
  await client.fetch(url, { signal, referrer: '', referrerPolicy: 'no-referrer' });
  const { referrer, referrerPolicy } = asked.at(-1) as Request;
  t.strictSame({ referrer, referrerPolicy }, { referrer: '', referrerPolicy: 'no-referrer' });
});

t.test('axios does the same', async (t) => {
  const own = await echo(t);
  const foreign = await echo(t, false);
  const client = startClient(t, server, { apiOrigins: [own.url] });
  const http = axios.create({ baseURL: own.url });
  client.attachToAxios(http);
  t.type(await rejection(http.get('/notes')), SignedOutError);

  const token = await login(client);
  t.strictSame((await http.get('/notes')).data, { method: 'GET', body: '' });
  t.equal(own.asked[0]?.authorization, `Bearer ${token}`);
  await http.get(foreign.url);
  t.equal(foreign.asked[0]?.authorization, undefined);

  await revoke(server, p1, token);
  const { data } = await http.post('/notes', { a: 'note' });
  t.strictSame(JSON.parse(data.body), { a: 'note' }, 'the same body again');
  t.equal(refreshes(client), 1);

  await revoke(server, p1, await client.accessToken());
  await Promise.all([http.get('/1'), http.get('/2'), http.get('/3')]);
  t.equal(refreshes(client), 2);

  for (let n = 0; n < 3; n++) {
    t.match(await rejection(http.get('/refuses')), { response: { status: 401 } });
  }
  t.equal(refreshes(client), 3);
  t.match(await rejection(http.get('http://127.0.0.1:1/')), { isAxiosError: true });
});

t.test('axios: the app sees one request and one answer, however often it was sent', async (t) => {
  const { url, asked } = await echo(t);
  const client = startClient(t, server, { apiOrigins: [url] });
  const unwrap = ({ data }: { data: unknown }) => data as never;
  const orders = {
    'interceptors that come first': (http: AxiosInstance, attach: () => void) => {
      http.interceptors.response.use(unwrap);
      attach();
    },
    'interceptors that come last': (http: AxiosInstance, attach: () => void) => {
      attach();
      http.interceptors.response.use(unwrap);
    },
  };
  for (const [name, set] of Object.entries(orders)) {
    const http = axios.create({
      baseURL: url,
      transformRequest: [(data) => JSON.stringify({ wrapped: data })],
    });
    let requests = 0;
    http.interceptors.request.use((request) => {
      requests++;
      request.url = `/v1${request.url}`;
      return request;
    });
    set(http, () => client.attachToAxios(http));
    await revoke(server, p1, await login(client));
    t.match(await http.post('/notes', 'a'), { body: '{"wrapped":"a"}' }, name);
    await revoke(server, p1, await client.accessToken());
    t.equal(await http.post('/nothing', 'a'), '', `${name}, and an answer without a body`);
    t.equal(requests, 2);
  }
  const bodies = asked.map(({ body }) => body);
  t.strictSame(bodies, new Array(8).fill('{"wrapped":"a"}'));
});

t.test('axios: a relative URL is that of the document, which may have another base', async (t) => {
  const own = await echo(t, false);
  const foreign = await echo(t, false);
  const client = startClient(t, server, { apiOrigins: [own.url] });
  const http = axios.create({
    adapter: async (config) =>
      axios.request({ url: foreign.url, headers: config.headers, method: 'get' }),
  });
  Object.assign(globalThis, { location: { href: own.url }, document: { baseURI: foreign.url } });
  t.teardown(() => {
    Reflect.deleteProperty(globalThis, 'location');
    Reflect.deleteProperty(globalThis, 'document');
  });
  client.attachToAxios(http);
  await login(client);
  await http.get('/picture');
  t.equal(foreign.asked[0]?.authorization, undefined);
  Reflect.deleteProperty(globalThis, 'document');
  await http.get('/picture');
  t.match(
    foreign.asked[1]?.authorization,
    /^Bearer /,
    'a worker has no document, and its own base',
  );
});

t.test('axios sends no stream twice', async (t) => {
  const { url, asked } = await echo(t);
  const client = startClient(t, server, { apiOrigins: [url] });
  const http = axios.create({ baseURL: url });
  client.attachToAxios(http);
  await revoke(server, p1, await login(client));
  const refused = await rejection(http.post('/', Readable.from(['x'])));
  t.match(refused, { response: { status: 401 } });
  t.equal(asked.length, 1);
  await revoke(server, p1, await login(client));
  const stream = new Blob(['x']).stream();
  const refusedToo = await rejection(http.post('/', stream, { adapter: 'fetch' }));
  t.match(refusedToo, { response: { status: 401 } }, "nor one of a browser's");
  t.equal(asked.length, 2);
});

t.test('a stream that was refused brings the next one a new token', async (t) => {
  const { url } = await echo(t);
  const client = startClient(t, server, { apiOrigins: [url] });
  const http = axios.create({ baseURL: url, validateStatus: () => true });
  client.attachToAxios(http);
  const stream = () => ({
    method: 'POST',
    body: new Blob(['x']).stream(),
    duplex: 'half' as const,
  });
  const ways = {
    fetch: async (path: string) => (await client.fetch(`${url}${path}`, stream())).status,
    axios: async (path: string) => (await http.post(path, Readable.from(['x']))).status,
  };
  for (const [name, send] of Object.entries(ways)) {
    await revoke(server, p1, await login(client));
    t.equal(await send('/'), 401, name);
    t.equal(await send('/'), 200);
    const before = refreshes(client);
    for (let n = 0; n < 4; n++) t.equal(await send('/refuses'), 401);
    t.ok(refreshes(client) <= before + 1, 'but no storm');
  }
});

t.test('a refusal that comes after the logout brings nobody back', async (t) => {
  const asked: (string | undefined)[] = [];
  let client: TestClient;
  const url = await listen(t, async ({ headers: { authorization } }, response) => {
    asked.push(authorization);
    // The session goes on at the server, which could not be told.
    client.network.loss = ({ what }) => (what === '/revoke' ? 'before' : undefined);
    await rejection(client.logout());
    response.writeHead(401).end();
  });
  for (const [name, send] of Object.entries(posts)) {
    client = startClient(t, server, { apiOrigins: [url], patienceSeconds: 0.1 });
    await login(client);
    t.type(await rejection(send(client, url)), SignedOutError, name);
    t.equal(client.isSignedIn, false);
    t.equal(refreshes(client), 0);
    t.equal(asked.splice(0).length, 1);
  }
});

t.test('a request of one person is not repeated as somebody else', async (t) => {
  const asked: (string | undefined)[] = [];
  let client: TestClient;
  const url = await listen(t, async ({ headers: { authorization } }, response) => {
    asked.push(authorization);
    await client.logout();
    await client.login(dave);
    response.writeHead(401).end();
  });
  for (const [name, send] of Object.entries(posts)) {
    client = startClient(t, server, { apiOrigins: [url], fetch: plainFetch });
    const token = await login(client);
    t.type(await rejection(send(client, url)), SignedOutError, name);
    t.strictSame(asked.splice(0), [`Bearer ${token}`]);
    t.ok(client.isSignedIn, 'and dave goes on');
  }
});

t.test('nor is one that waits for a token sent as somebody else', async (t) => {
  const { url, asked } = await echo(t);
  const client = startClient(t, server, { apiOrigins: [url] });
  client.network.expiresInSeconds = 0;
  await client.login({ username: 'alice', password: ALICE_PASSWORD });
  client.network.expiresInSeconds = 60;
  client.network.loss = async ({ what }) => {
    if (!what.endsWith('refresh_token')) return undefined;
    client.network.loss = () => undefined;
    await client.logout();
    await client.login(dave);
    return 'before';
  };
  t.type(await rejection(client.fetch(url, { method: 'POST', body: 'x' })), SignedOutError);
  t.equal(asked.length, 0);
});

t.test('axios: a request that the app itself repeats is not sent as somebody else', async (t) => {
  const { url, asked } = await echo(t);
  const client = startClient(t, server, { apiOrigins: [url] });
  const http = axios.create();
  client.attachToAxios(http);
  await login(client);
  const { config } = await http.post(url, 'x');
  t.equal((await http.request(config)).status, 200);
  await client.logout();
  await client.login(dave);
  t.type(await rejection(http.request(config)), SignedOutError);
  t.equal(asked.length, 2);
});

t.test('axios waits for a token no longer than its caller', async (t) => {
  const { url, asked } = await echo(t);
  const client = startClient(t, server, { apiOrigins: [url] });
  const http = axios.create({ baseURL: url });
  client.attachToAxios(http);
  // Long enough for the API to refuse the token on a busy machine; what is waited for never comes.
  const limits = {
    signal: {
      options: () => ({ signal: AbortSignal.timeout(1000) }),
      error: { code: 'ERR_CANCELED' },
    },
    timeout: { options: () => ({ timeout: 1000 }), error: { name: 'UnavailableError' } },
  };
  const { promise: held, resolve: release } = Promise.withResolvers<'before'>();
  for (const [name, { options, error }] of Object.entries(limits)) {
    client.network.loss = () => undefined;
    const token = await login(client);
    client.network.loss = ({ what }) => (what.endsWith('refresh_token') ? held : undefined);
    await revoke(server, p1, token);
    const refused = rejection(http.get('/', options()));
    const patience = new Promise((resolve) => setTimeout(resolve, 5000, 'still waiting'));
    t.match(await Promise.race([refused, patience]), error, name);
  }
  t.equal(asked.length, 2);
  client.network.loss = () => undefined;
  release('before');
  t.equal((await http.get('/')).status, 200, 'the session goes on');
});

t.test('a signal that serves many requests keeps nothing of them', async (t) => {
  const { url } = await echo(t);
  const client = startClient(t, server, { apiOrigins: [url] });
  const http = axios.create({ baseURL: url });
  client.attachToAxios(http);
  await login(client);
  const { signal } = new AbortController();
  for (let n = 0; n < 3; n++) await http.get('/notes', { signal });
  t.strictSame(getEventListeners(signal, 'abort'), []);
});

t.test('axios gets a new token whatever validateStatus admits', async (t) => {
  const { url, asked } = await echo(t);
  const client = startClient(t, server, { apiOrigins: [url] });
  const http = axios.create({ baseURL: url, validateStatus: () => true });
  client.attachToAxios(http);
  await revoke(server, p1, await login(client));
  t.equal((await http.get('/notes')).status, 200);
  t.equal(refreshes(client), 1);
  for (let n = 0; n < 3; n++) t.equal((await http.get('/refuses')).status, 401);
  t.equal(refreshes(client), 2);
  t.equal(asked.length, 6);
});
