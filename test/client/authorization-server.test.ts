/** What the token client sends to an authorization server, which is made up, and what it makes of the answers. */
import t from 'tap';
import { createTokenClient, memoryRefreshTokenStore } from '../../src/client/client.ts';

const alice = { username: 'alice', password: 'secret' };
const good = { access_token: 'a token', token_type: 'Bearer', expires_in: 60 };

/** A login, which is never repeated, at a server that answers so. */
async function loginAt(
  answer: Response,
  authorizationServer = 'https://auth.example',
  options: { delivery?: 'cookie' | 'body'; clientSecret?: string } = {},
) {
  const asked: Request[] = [];
  const refreshTokenStore = memoryRefreshTokenStore();
  const { delivery = 'body' } = options;
  const client = createTokenClient({
    authorizationServer,
    clientId: 'an app',
    apiOrigins: [],
    delivery,
    ...(delivery === 'body' && { refreshTokenStore }),
    ...options,
    fetch: async (input, init) => {
      asked.push(new Request(input, init));
      return answer;
    },
  });
  const error = await client.login(alice).then(
    () => undefined,
    (error: unknown) => error,
  );
  const { isSignedIn } = client;
  client.close();
  const [request] = asked as [Request];
  return { error, isSignedIn, request, form: await request.formData(), refreshTokenStore };
}

t.test('what is sent with a password goes nowhere else and is kept nowhere', async (t) => {
  for (const [delivery, credentials] of [
    ['body', 'omit'],
    ['cookie', 'include'],
  ] as const) {
    const { request, form } = await loginAt(Response.json(good), undefined, { delivery });
    const { cache, redirect, referrerPolicy } = request;
    t.strictSame(
      { credentials: request.credentials, cache, redirect, referrerPolicy },
      { credentials, cache: 'no-store', redirect: 'error', referrerPolicy: 'no-referrer' },
      delivery,
    );
    t.strictSame(Object.fromEntries(form), {
      grant_type: 'password',
      ...alice,
      client_id: 'an app',
    });
  }
});

t.test('RFC 6749 §2.3.1: a client with a secret says who it is once, in one form', async (t) => {
  const clientSecret = 'a secret: 100 %, ü';
  const { request, form } = await loginAt(Response.json(good), undefined, { clientSecret });
  const credentials = Buffer.from('an+app:a+secret%3A+100+%25%2C+%C3%BC').toString('base64');
  t.equal(request.headers.get('authorization'), `Basic ${credentials}`);
  t.equal(form.has('client_id'), false);
});

t.test('the endpoints are below the address, however it ends', async (t) => {
  for (const [address, url] of [
    ['https://auth.example', 'https://auth.example/token'],
    ['https://auth.example/', 'https://auth.example/token'],
    ['https://auth.example/people//', 'https://auth.example/people/token'],
  ]) {
    t.equal((await loginAt(Response.json(good), address)).request.url, url);
  }
});

t.test('RFC 6749 §5.1: an answer with a token signs in', async (t) => {
  const refreshToken = { refresh_token: 'the next' };
  for (const [body, kept] of [
    [{ ...good, ...refreshToken }, 'the next'],
    [{ ...good, ...refreshToken, token_type: 'BEARER' }, 'the next'],
    [{ ...good, ...refreshToken, expires_in: '60' }, 'the next'],
    [{ ...good, ...refreshToken, expires_in: 0 }, 'the next'],
    [{ ...good, refresh_token: null }, undefined],
  ] as const) {
    const { isSignedIn, refreshTokenStore } = await loginAt(Response.json(body));
    t.strictSame([isSignedIn, await refreshTokenStore.load()], [true, kept], JSON.stringify(body));
  }
});

t.test('half an answer, or that of something in between, is trouble', async (t) => {
  for (const body of [
    null,
    'a text',
    [],
    {},
    { ...good, access_token: '' },
    { ...good, access_token: 5 },
    { ...good, token_type: undefined },
    { ...good, token_type: 'DPoP' },
    { ...good, expires_in: undefined },
    { ...good, expires_in: 'soon' },
    { ...good, expires_in: -1 },
  ]) {
    const { error, isSignedIn } = await loginAt(Response.json(body));
    t.match(error, { name: 'UnavailableError' }, JSON.stringify(body));
    t.equal(isSignedIn, false);
  }
  const cut = new ReadableStream({
    pull: (controller) => controller.error(new TypeError('terminated')),
  });
  t.match((await loginAt(new Response(cut))).error, { name: 'UnavailableError' });
});

t.test(
  'which failures are trouble, and for how long the server asks to be left alone',
  async (t) => {
    for (const [retryAfter, seconds] of [
      ['7', 7],
      ['0', 0],
      ['-1', undefined],
      ['Fri, 31 Dec 1999 23:59:59 GMT', undefined],
      [undefined, undefined],
    ] as const) {
      for (const status of [408, 429, 500, 501, 502, 503, 504, 520, 599]) {
        const headers = retryAfter === undefined ? {} : { 'retry-after': retryAfter };
        const { error } = await loginAt(new Response('<p>', { status, headers }));
        t.match(error, { name: 'UnavailableError' }, `${status} ${retryAfter}`);
        t.equal((error as { retryAfterSeconds?: number }).retryAfterSeconds, seconds);
      }
    }
  },
);

t.test('any other failure is a refusal, whose code is told if it is one', async (t) => {
  for (const [text, code] of [
    ['{"error":"invalid_grant"}', 'invalid_grant'],
    ['{"error":"Not a code"}', undefined],
    ['{"error":5}', undefined],
    ['null', undefined],
    ['"invalid_grant"', undefined],
    ['<p>invalid_grant</p>', undefined],
    ['', undefined],
  ] as const) {
    for (const status of [400, 401, 403, 404, 413]) {
      const { error } = await loginAt(new Response(text, { status }));
      t.match(error, { name: 'TokenRequestError', status }, `${status} ${text}`);
      t.equal((error as { code?: string }).code, code);
    }
  }
});
