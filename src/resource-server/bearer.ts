/** Bearer tokens as a resource server sees them, RFC 6750: what was presented, and how it is refused. */

/** Longer ones are refused unread; no authorization server issues them as opaque tokens. */
const MAXIMUM_TOKEN_CHARACTERS = 4096;

/** RFC 6750 §3.1, and `undefined` where no authentication was tried at all. */
export type BearerErrorCode = 'invalid_request' | 'invalid_token' | 'insufficient_scope';

/** What a request shows of a token. A senseless one cannot be anybody's, so nobody need be asked. */
export type PresentedBearer =
  | { readonly outcome: 'presented'; readonly token: string }
  | { readonly outcome: 'senseless' }
  | { readonly outcome: 'absent' }
  | { readonly outcome: 'malformed' };

/** One word is what was meant as a token: where it is none, the token is malformed and not the request. */
const bearer = /^bearer +([^ ]+) *$/i;

/** RFC 6750 §2.1. */
const b64token = /^[A-Za-z0-9\-._~+/]+=*$/;

/**
 * Reads the token from the `Authorization` header fields of a request; it is taken from nowhere else
 * (RFC 6750 §2.1, and §5.3 on URLs). Another scheme counts as no authentication.
 *
 * @param authorization every field of that name: two of them would be two answers to one question
 */
export function readBearer(authorization: readonly string[]): PresentedBearer {
  const [first] = authorization;
  if (first === undefined) return { outcome: 'absent' };
  if (authorization.length > 1) return { outcome: 'malformed' };
  if (!/^bearer(?: |$)/i.test(first)) return { outcome: 'absent' };
  const token = bearer.exec(first)?.[1];
  if (token === undefined) return { outcome: 'malformed' };
  if (token.length > MAXIMUM_TOKEN_CHARACTERS || !b64token.test(token))
    return { outcome: 'senseless' };
  return { outcome: 'presented', token };
}

/**
 * Tells whether a form that was parsed already holds a token too: with the one in the header that makes two
 * methods, which RFC 6750 §2 forbids.
 */
export const hasTokenInForm = (contentType: string | undefined, body: unknown): boolean =>
  /^application\/x-www-form-urlencoded\s*(;|$)/i.test(contentType ?? '') &&
  typeof body === 'object' &&
  body !== null &&
  Object.hasOwn(body, 'access_token');

/** An answer that any framework can send: a status, headers and a JSON body. */
export interface Refusal {
  readonly status: 400 | 401 | 403 | 500 | 503;
  readonly headers: Readonly<Record<string, string>>;
  readonly body: { readonly error: string };
}

const headers = { 'cache-control': 'no-store', 'content-type': 'application/json; charset=utf-8' };

const statusOf = { invalid_request: 400, invalid_token: 401, insufficient_scope: 403 } as const;

/**
 * Builds the refusals of one resource server.
 *
 * Nothing of a request is ever repeated in a challenge, so there is nothing to quote.
 *
 * @param realm names the protected space (RFC 9110 §11.5)
 * @see RFC 6750 §3
 */
export function bearerRefusals(realm: string) {
  const challenge = (status: Refusal['status'], error: string, parameters: readonly string[]) => ({
    status,
    headers: {
      ...headers,
      'www-authenticate': `Bearer ${[`realm="${realm}"`, ...parameters].join(', ')}`,
    },
    body: { error },
  });
  return {
    /** RFC 6750 §3.1: who did not try to authenticate is told no error code. */
    unauthenticated: (): Refusal => challenge(401, 'unauthorized', []),
    refused: (code: BearerErrorCode, requiredScope: readonly string[] = []): Refusal =>
      challenge(statusOf[code], code, [
        `error="${code}"`,
        ...(requiredScope.length > 0 ? [`scope="${requiredScope.join(' ')}"`] : []),
      ]),
    /** The token may be good; nobody can say so at the moment. */
    unavailable: (retryAfterSeconds: number): Refusal => ({
      status: 503,
      headers: { ...headers, 'retry-after': String(retryAfterSeconds) },
      body: { error: 'temporarily_unavailable' },
    }),
    /** The API itself is set up wrongly, and the caller can do nothing about it. */
    misconfigured: (): Refusal => ({ status: 500, headers, body: { error: 'server_error' } }),
  };
}

/** RFC 6749 §3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E ). */
const scopeToken = /^[\x21\x23-\x5b\x5d-\x7e]+$/;

/** @throws TypeError when a text would break out of a challenge: it is written by the API's author */
export function assertChallengeable(realm: string, scope: readonly string[] = []): void {
  if (!/^[\x20\x21\x23-\x5b\x5d-\x7e]*$/.test(realm)) throw new TypeError('realm is not quotable');
  for (const each of scope) {
    if (!scopeToken.test(each)) throw new TypeError('a required scope is not a scope-token');
  }
}
