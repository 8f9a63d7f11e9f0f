/** What an app that uses axios gets back from the token client, and does with it. */
import type { RequestListener } from 'node:http';
import { Readable } from 'node:stream';
import axios, { type AxiosError } from 'axios';
import t, { type Test } from 'tap';
import { listen } from '../resource-server/apis.ts';
import { ALICE_PASSWORD, createCast } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';
import { startClient } from './network.ts';

const server = await startServer(t, { isRateLimitOn: false });
await createCast(server);

/** Alice's app and its API; tokens that are asked for from now on seem to live for `expiresInSeconds`. */
async function scene(t: Test, answer: RequestListener, expiresInSeconds = 60) {
  const asked: (string | undefined)[] = [];
  const url = await listen(t, (request, response) => {
    asked.push(request.headers.authorization);
    response.setHeader('content-type', 'application/json');
    answer(request, response);
  });
  const client = startClient(t, server, { apiOrigins: [url] });
  client.network.expiresInSeconds = expiresInSeconds;
  await client.login({ username: 'alice', password: ALICE_PASSWORD });
  return { asked, client, http: axios.create({ baseURL: url }) };
}

const failure = (promise: Promise<unknown>): Promise<AxiosError> =>
  promise.then(
    () => Promise.reject(new Error('no failure')),
    (error: AxiosError) => error,
  );

t.test(
  'a request that the app repeats is the one that it made, and gets such an answer',
  async (t) => {
    let status = 200;
    const { client, http } = await scene(t, (_request, response) => {
      response.writeHead(status).end('{"a":"note"}');
    });
    client.attachToAxios(http);
    const { config } = await http.post('/notes', { a: 'note' });
    status = 503;
    const error = await failure(http.post('/notes', { a: 'note' }));
    status = 200;
    for (const [name, each] of Object.entries({
      'of an answer': config,
      'of an error': error.config,
      "of an error's answer": error.response?.config,
    })) {
      t.strictSame((await http.request(each ?? {})).data, { a: 'note' }, name);
    }
  },
);

t.test('however often an app repeats a request, each time it is sent twice at most', async (t) => {
  const refuse: RequestListener = (_request, response) => void response.writeHead(401).end();
  const { asked, client, http } = await scene(t, refuse, 0);
  client.attachToAxios(http);
  let { config } = await failure(http.get('/notes'));
  for (let n = 0; n < 4; n++) {
    t.equal(new Set(asked).size, 2, 'by the token that was there and by another');
    t.equal(asked.splice(0).length, 2);
    ({ config } = await failure(http.request(config ?? {})));
  }
});

t.test('a request that the app has led elsewhere brings no new token there', async (t) => {
  const { client, http } = await scene(t, (_request, response) => void response.end('{}'));
  let refusals = 0;
  const elsewhere = await listen(t, (_request, response) => {
    refusals++;
    response.writeHead(401).end();
  });
  // axios runs it after that of the client, which is added later.
  http.interceptors.request.use((request) => ({ ...request, baseURL: elsewhere }));
  client.attachToAxios(http);
  t.match(await failure(http.get('/notes')), { response: { status: 401 } });
  t.equal(refusals, 1);
  t.equal(client.network.count('/token refresh_token'), 0);
});

t.test(
  'a request waits for a token no longer than its caller, wherever it needs one',
  async (t) => {
    const refuse: RequestListener = (_request, response) => void response.writeHead(401).end();
    const callers = {
      signal: () => ({ signal: AbortSignal.timeout(1000) }),
      timeout: () => ({ timeout: 1000 }),
    };
    const late = () => new Promise((resolve) => setTimeout(resolve, 20_000, 'late').unref());
    for (const [name, options] of Object.entries(callers)) {
      // What is asked for here is never answered.
      const expired = await scene(t, refuse, 0);
      expired.client.attachToAxios(expired.http);
      expired.client.network.loss = () => new Promise(() => {});
      const error = await Promise.race([failure(expired.http.get('/notes', options())), late()]);
      if (name === 'signal') t.ok(axios.isCancel(error), 'cancelled, as axios has it');
      else t.match(error, { name: 'UnavailableError' });
      t.strictSame(expired.asked, []);

      const refused = await scene(t, refuse);
      refused.client.attachToAxios(refused.http);
      refused.client.network.loss = ({ what }) =>
        what.startsWith('/token') ? new Promise(() => {}) : undefined;
      const upload = failure(refused.http.post('/notes', Readable.from(['x']), options()));
      t.not(
        await Promise.race([upload, late()]),
        'late',
        `a stream, which is not sent again: ${name}`,
      );
      t.equal(refused.asked.length, 1);
    }
  },
);

t.test('every timeout that axios takes will do', async (t) => {
  const { client, http } = await scene(t, (_request, response) => void response.end('{}'));
  client.attachToAxios(http);
  // Nobody's, a computed one, and one out of a configuration file.
  for (const timeout of [0, 100_000 / 3, '60000' as unknown as number]) {
    t.equal((await http.get('/notes', { timeout })).status, 200, String(timeout));
  }
});
