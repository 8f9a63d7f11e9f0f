/** What `fetch` of the token client does when an API, which is made up, refuses a token. */
import t, { type Test } from 'tap';
import { ALICE_PASSWORD, createCast } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';
import { type Loss, startClient } from './network.ts';

const server = await startServer(t, { isRateLimitOn: false });
await createCast(server);
const alice = { username: 'alice', password: ALICE_PASSWORD };

const API = 'http://api.example';
const refreshing = '/token refresh_token';
const never = new Promise<Loss>(() => {});
const refusal = () => new Response('no', { status: 401 });

/** Alice's app; `onRefresh` is what becomes of its refreshes, and `answer` what its API says. */
async function scene(
  t: Test,
  answer: (authorization: string | null) => Response,
  onRefresh: () => Loss | Promise<Loss> = () => undefined,
) {
  const client = startClient(t, server, { apiOrigins: [API], patienceSeconds: 0.2 });
  await client.login(alice);
  client.network.loss = ({ what, headers }) => {
    if (what === '/notes') return answer(headers.get('authorization'));
    return what === refreshing ? onRefresh() : undefined;
  };
  return client;
}

t.test('whoever aborts does not wait for another token either', async (t) => {
  const withSignal: Record<string, (signal: AbortSignal) => Parameters<typeof fetch>> = {
    'in the options': (signal) => [`${API}/notes`, { signal }],
    'in a request': (signal) => [new Request(`${API}/notes`, { signal })],
  };
  for (const [name, build] of Object.entries(withSignal)) {
    for (const when of ['with the refusal', 'while a token is fetched']) {
      const controller = new AbortController();
      const answer = () => {
        if (when === 'with the refusal') controller.abort();
        return refusal();
      };
      const onRefresh = () => {
        controller.abort();
        return never;
      };
      const client = await scene(t, answer, onRefresh);
      const outcome = client.fetch(...build(controller.signal)).catch((error) => error);
      const late = new Promise((resolve) => setTimeout(resolve, 20_000, 'late').unref());
      const first = await Promise.race([outcome, late]);
      t.match(first, { name: 'AbortError' }, `${name}, ${when}`);
    }
  }
});

t.test('an API that has refused every token is believed as long as that token lasts', async (t) => {
  let good = 'nobody';
  const client = await scene(t, (token) =>
    token === `Bearer ${good}` ? new Response('yes') : refusal(),
  );
  t.equal((await client.fetch(`${API}/notes`)).status, 401);
  await client.login(alice);
  good = await client.accessToken();
  t.equal((await client.fetch(`${API}/notes`)).status, 200);
  client.network.loss = ({ what, headers }) => {
    if (what !== '/notes') return undefined;
    return headers.get('authorization') === `Bearer ${good}` ? refusal() : new Response('yes');
  };
  t.equal((await client.fetch(`${API}/notes`)).status, 200, 'another token is tried again');
});

t.test('a refusal that is not shown to the app occupies no connection', async (t) => {
  let open = 0;
  const client = await scene(t, () => {
    if (client.network.count('/notes') > 1) return new Response('yes');
    open++;
    return new Response(new ReadableStream({ cancel: () => void open-- }), { status: 401 });
  });
  t.equal((await client.fetch(`${API}/notes`)).status, 200);
  t.equal(open, 0);
});

t.test('a stream that was refused is answered, whatever becomes of the next token', async (t) => {
  const client = await scene(t, refusal, () => 'before');
  const body = new Blob(['x']).stream();
  const init = { method: 'POST', body, duplex: 'half' } as RequestInit;
  const response = await client.fetch(`${API}/notes`, init);
  t.strictSame([response.status, await response.text()], [401, 'no']);
  t.ok(client.isSignedIn);
});
