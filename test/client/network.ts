/** What lies between a token client and the servers in a test: a browser's cookies, and losses. */
import type { Test } from 'tap';
import {
  createTokenClient,
  type SignOutReason,
  type TokenClient,
  type TokenClientOptions,
} from '../../src/client/client.ts';
import { APP_ORIGIN } from '../support/browser.ts';
import { introspect } from '../support/fixtures.ts';
import type { TestServer } from '../support/server.ts';

export interface Sent {
  /** The path, and what kind of token request it was. */
  readonly what: string;
  readonly headers: Headers;
  readonly body: URLSearchParams;
}

/** `before`: the request is lost. `after`: the server has answered, and the answer is lost. */
export type Loss = 'before' | 'after' | Response | undefined;

export interface Network {
  readonly fetch: typeof globalThis.fetch;
  /** Every request so far, to the authorization server and elsewhere. */
  readonly sent: Sent[];
  /** Decides about each request; a `Response` is answered in the server's place. */
  loss: (sent: Sent) => Loss | Promise<Loss>;
  /** Access tokens seem to live that long, whatever the server says; undefined: as it says. */
  expiresInSeconds: number | undefined;
  /** The cookies, by name, as a browser keeps them. */
  readonly cookies: Map<string, string>;
  count(what: string): number;
}

/** Sends as a browser would for an app of the same site. */
export function createNetwork(): Network {
  const cookies = new Map<string, string>();
  const network: Network = {
    sent: [],
    loss: () => undefined,
    expiresInSeconds: undefined,
    cookies,
    count: (what) => network.sent.filter((each) => each.what === what).length,
    async fetch(input, init) {
      const request = new Request(input, init);
      const text = await request.clone().text();
      const body = new URLSearchParams(text);
      const { pathname } = new URL(request.url);
      const what = [pathname, body.get('grant_type')].filter(Boolean).join(' ');
      const headers = new Headers(request.headers);
      if (request.credentials === 'include') {
        headers.set('origin', APP_ORIGIN);
        headers.set('sec-fetch-site', 'same-site');
        const pairs = [...cookies].map((pair) => pair.join('='));
        if (pairs.length > 0) headers.set('cookie', pairs.join('; '));
      }
      const sent = { what, headers, body };
      network.sent.push(sent);
      const loss = await network.loss(sent);
      if (loss instanceof Response) return loss;
      if (loss === 'before') throw new TypeError('fetch failed');
      const response = await fetch(request.url, {
        method: request.method,
        headers,
        ...(text !== '' && { body: text }),
        signal: request.signal,
      });
      if (loss === 'after') throw new TypeError('fetch failed');
      if (request.credentials === 'include') keepCookies(cookies, response);
      return aged(response, network.expiresInSeconds);
    },
  };
  return network;
}

function keepCookies(cookies: Map<string, string>, response: Response): void {
  for (const header of response.headers.getSetCookie()) {
    const [, name = '', value = ''] = /^([^=]+)=([^;]*)/.exec(header) ?? [];
    if (/;\s*max-age=0(;|$)/i.test(header)) cookies.delete(name);
    else cookies.set(name, value);
  }
}

async function aged(response: Response, expiresInSeconds: number | undefined): Promise<Response> {
  if (expiresInSeconds === undefined || !new URL(response.url).pathname.endsWith('/token')) {
    return response;
  }
  const body = (await response.json()) as Record<string, unknown>;
  const { status, headers } = response;
  if (status !== 200) return new Response(JSON.stringify(body), { status, headers });
  return Response.json({ ...body, expires_in: expiresInSeconds }, { status });
}

export interface TestClient extends TokenClient {
  readonly network: Network;
  /** Why somebody was signed out, in order. */
  readonly signedOut: SignOutReason[];
  /** How often somebody was signed in. */
  readonly signedIn: () => number;
}

/** A client over a network of its own, or over that of another tab. */
export function startClient(
  t: Test,
  server: TestServer,
  options: Partial<TokenClientOptions> = {},
  network = createNetwork(),
): TestClient {
  const signedOut: SignOutReason[] = [];
  let signIns = 0;
  const client = createTokenClient({
    authorizationServer: server.url,
    clientId: options.delivery === 'cookie' ? 'web' : 'P1',
    delivery: 'body',
    apiOrigins: [],
    fetch: network.fetch,
    onSignedOut: (reason) => signedOut.push(reason),
    onSignedIn: () => signIns++,
    patienceSeconds: 5,
    ...options,
  });
  t.teardown(() => client.close());
  return Object.defineProperties(client, {
    network: { value: network },
    signedOut: { value: signedOut },
    signedIn: { value: () => signIns },
  }) as TestClient;
}

/** Registers the client `web`, an app in a browser. */
export const registerApp = ({ dependencies }: TestServer) =>
  dependencies.clients.create({
    clientId: 'web',
    clientType: 'public',
    grantTypes: ['password', 'refresh_token'],
    scope: ['read', 'write'],
    delivery: 'cookie',
    origins: [APP_ORIGIN],
  });

/** What the database knows of all families, oldest first. */
export async function families({ inspect }: TestServer) {
  const { rows } = await inspect.query(
    'select generation, revocation_reason from token_family order by started_at',
  );
  return rows as { generation: number; revocation_reason: string | null }[];
}

export const pause = (milliseconds: number) =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));

/** What a promise was rejected with; undefined if it was not. */
export const rejection = (promise: Promise<unknown>): Promise<unknown> =>
  promise.then(
    () => undefined,
    (error: unknown) => error,
  );

/** Registers an API that may ask about any token, and answers how it asks whether one is good. */
export async function registerReader(
  server: TestServer,
): Promise<(token: string) => Promise<boolean>> {
  const { clientSecret } = await server.dependencies.clients.create({
    clientId: 'any',
    clientType: 'confidential',
    introspectionRight: 'any',
  });
  const reader = { id: 'any', secret: clientSecret as string };
  return async (token) => (await introspect(server, reader, token)).body.active;
}
