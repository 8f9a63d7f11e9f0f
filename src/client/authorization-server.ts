/** The two endpoints of the authorization server that a client talks to. */
import { TokenRequestError, UnavailableError } from './errors.ts';

export interface AuthorizationServerOptions {
  /** Where it is, e.g. `https://auth.example`; `/token` and `/revoke` are below. */
  readonly authorizationServer: string | URL;
  readonly clientId: string;
  /** For confidential clients on a server. What a browser holds is no secret. */
  readonly clientSecret?: string | undefined;
  /** Requests carry the cookie, and the header that forged ones cannot have. */
  readonly isCookieSent: boolean;
  readonly fetch: typeof globalThis.fetch;
  readonly requestTimeoutMilliseconds: number;
}

/** RFC 6749 §5.1. */
export interface TokenResponse {
  readonly accessToken: string;
  readonly expiresInSeconds: number;
  readonly refreshToken: string | undefined;
}

export type FormParameters = Readonly<Record<string, string | undefined>>;

export interface AuthorizationServerEndpoints {
  /** @throws TokenRequestError, or UnavailableError when asking again may help */
  token(parameters: FormParameters): Promise<TokenResponse>;
  /** RFC 7009 §2. @throws as `token` does */
  revoke(parameters: FormParameters): Promise<void>;
}

export function authorizationServerEndpoints(
  options: AuthorizationServerOptions,
): AuthorizationServerEndpoints {
  const { clientId, clientSecret, isCookieSent, requestTimeoutMilliseconds } = options;
  const base = String(options.authorizationServer).replace(/\/+$/, '');
  const headers: Record<string, string> = {
    accept: 'application/json',
    'content-type': 'application/x-www-form-urlencoded',
    ...(isCookieSent && { 'x-heirloom-csrf': '1' }),
    ...(clientSecret !== undefined && { authorization: basicCredentials(clientId, clientSecret) }),
  };
  const identification = clientSecret === undefined ? { client_id: clientId } : {};

  /** Everything that goes wrong before there is a whole answer is trouble, and says nothing else. */
  const post = async (path: string, parameters: FormParameters) => {
    const url = `${base}${path}`;
    const init: RequestInit = {
      method: 'POST',
      headers,
      body: encodeForm({ ...parameters, ...identification }),
      credentials: isCookieSent ? 'include' : 'omit',
      // Neither credentials nor an answer with tokens belong anywhere else.
      redirect: 'error',
      cache: 'no-store',
      referrerPolicy: 'no-referrer',
      signal: AbortSignal.timeout(requestTimeoutMilliseconds),
    };
    // What cannot even be built, for want of an address or of a whole `fetch`, no network will mend.
    new Request(url, init);
    try {
      const response = await options.fetch(url, init);
      return { response, body: parse(await response.text()) };
    } catch (cause) {
      throw new UnavailableError({ cause });
    }
  };

  const request = async (path: string, parameters: FormParameters): Promise<unknown> => {
    const { response, body } = await post(path, parameters);
    if (response.ok) return body;
    const { status } = response;
    // 408 is of a network too slow for the request, and says nothing about it (RFC 9110 §15.5.9).
    if (status === 408 || status === 429 || status >= 500) {
      throw new UnavailableError({ retryAfterSeconds: readRetryAfter(response) });
    }
    const { error } = (body ?? {}) as { error?: unknown };
    throw new TokenRequestError(status, isErrorCode(error) ? error : undefined);
  };

  return {
    async token(parameters) {
      const response = readTokenResponse(await request('/token', parameters));
      // Half an answer, or that of something in between: the token may have been rotated all the same.
      if (response === undefined) throw new UnavailableError({});
      return response;
    },
    async revoke(parameters) {
      await request('/revoke', parameters);
    },
  };
}

function encodeForm(parameters: FormParameters): string {
  const form = new URLSearchParams();
  for (const [name, value] of Object.entries(parameters)) {
    if (value !== undefined) form.append(name, value);
  }
  return form.toString();
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}

function readTokenResponse(body: unknown): TokenResponse | undefined {
  if (typeof body !== 'object' || body === null) return undefined;
  const { access_token, token_type, expires_in, refresh_token } = body as Record<string, unknown>;
  if (typeof access_token !== 'string' || access_token === '') return undefined;
  // RFC 6749 §7.1: a client must not use a type that it does not understand.
  if (typeof token_type !== 'string' || token_type.toLowerCase() !== 'bearer') return undefined;
  const expiresInSeconds = Number(expires_in);
  if (!(expiresInSeconds >= 0)) return undefined;
  return {
    accessToken: access_token,
    expiresInSeconds,
    refreshToken: typeof refresh_token === 'string' ? refresh_token : undefined,
  };
}

/** RFC 6749 §5.2 writes codes in this alphabet; anything else is not repeated in an error. */
const isErrorCode = (error: unknown): error is string =>
  typeof error === 'string' && /^[a-z_]{1,40}$/.test(error);

/** RFC 9110 §10.2.3 in seconds; a page can read it only where the server exposes it. */
function readRetryAfter({ headers }: Response): number | undefined {
  const seconds = Number(headers.get('retry-after') ?? Number.NaN);
  return seconds >= 0 ? seconds : undefined;
}

/** RFC 6749 §2.3.1: both parts form-urlencoded first, which leaves ASCII only. */
function basicCredentials(clientId: string, clientSecret: string): string {
  const encode = (part: string) => new URLSearchParams([['', part]]).toString().slice(1);
  return `Basic ${btoa(`${encode(clientId)}:${encode(clientSecret)}`)}`;
}
