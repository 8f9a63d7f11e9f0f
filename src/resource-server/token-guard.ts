/** Decides whether a request may pass, by asking the authorization server about its token. */
import type { IncomingMessage, ServerResponse } from 'node:http';
import { emitWarning } from 'node:process';
import {
  assertChallengeable,
  bearerRefusals,
  hasTokenInForm,
  type Refusal,
  readBearer,
} from './bearer.ts';
import { cached, type IntrospectionCacheOptions } from './introspection-cache.ts';
import { type Claims, createIntrospectionRequest } from './introspection-request.ts';

/** Which authorization server, as which client, and what the API expects of a token. */
export interface TokenGuardOptions {
  /** The authorization server's RFC 7662 endpoint, e.g. `https://auth.example/introspect`. */
  readonly introspectionEndpoint: string | URL;
  /** Who this API is there: a confidential client that may introspect. */
  readonly clientId: string;
  readonly clientSecret: string;
  /** Refuses every token whose `aud` does not name this API (RFC 8707 §2). Not checked if left out. */
  readonly audience?: string;
  /** Names the protected space in challenges (RFC 9110 §11.5). Default: the audience, or `api`. */
  readonly realm?: string;
  /** How long an API request waits for the authorization server before it is answered 503. Default 5. */
  readonly timeoutSeconds?: number;
  /** Connections to the authorization server that are kept. Default 64. */
  readonly maximumConnections?: number;
  /**
   * Off by default: every request asks, so a revoked token is refused at the next one. With a cache it is
   * still accepted for up to `maximumAgeSeconds`.
   */
  readonly cache?: IntrospectionCacheOptions;
  /**
   * Allows `http:` to a host that is not this machine. The client secret and every token cross the network
   * in clear then.
   */
  readonly allowPlainHttp?: boolean;
  /** Told why an answer was 500 or 503; never about a token or a secret. Default: a warning of the process. */
  readonly onProblem?: (problem: GuardProblem) => void;
}

/** Why requests cannot be judged: nobody answers, or the API is set up wrongly. */
export interface GuardProblem {
  readonly kind: 'unavailable' | 'misconfigured';
  readonly detail: string;
}

/** A token that the authorization server has just called active, RFC 7662 §2.2. */
export interface VerifiedToken {
  readonly scope: ReadonlySet<string>;
  readonly clientId: string | undefined;
  /** The person, by an identifier that is never given to anybody else; undefined where there is none. */
  readonly subject: string | undefined;
  readonly audience: readonly string[];
  readonly expiresAt: Date | undefined;
  /** Everything that the answer said. */
  readonly claims: Claims;
}

/** What a check decides: the token to go on with, or the answer to send. */
export type Access =
  | { readonly outcome: 'granted'; readonly token: VerifiedToken }
  | { readonly outcome: 'refused'; readonly refusal: Refusal };

/** What the guard reads of a request: that of `node:http`, Express, and whatever looks like it. */
export type GuardedRequest = Pick<IncomingMessage, 'headers'> &
  Partial<Pick<IncomingMessage, 'headersDistinct'>> & {
    /** Where it was parsed before: a form may hold no second token. */
    readonly body?: unknown;
  };

/** A middleware as Express, Connect and plain `node:http` call it. */
export type Middleware = (
  request: IncomingMessage,
  response: ServerResponse,
  next: (error?: unknown) => void,
) => void;

/** The guard of one API. */
export interface TokenGuard {
  /**
   * Asks about the request's token. Never rejects: whatever goes wrong is a refusal to send.
   *
   * @param requiredScope scope-tokens that the token must all have
   */
  check(request: GuardedRequest, ...requiredScope: readonly string[]): Promise<Access>;
  /** Builds a middleware that lets a request pass with such a token, and answers it otherwise. */
  requireScope(...requiredScope: readonly string[]): Middleware;
  /** The token with which a request passed the middleware. @throws TypeError if it did not */
  tokenOf(request: IncomingMessage): VerifiedToken;
  /** Closes the connections to the authorization server. */
  close(): void;
}

/**
 * Builds the guard of an API; nothing is asked before the first request.
 *
 * @throws TypeError for options that cannot work or would give the client secret away
 */
export function createTokenGuard(options: TokenGuardOptions): TokenGuard {
  const { audience, onProblem = warn } = options;
  const realm = realmOf(options);
  assertChallengeable(realm);
  const request = createIntrospectionRequest({
    endpoint: endpointOf(options),
    clientId: options.clientId,
    clientSecret: options.clientSecret,
    timeoutMilliseconds: (options.timeoutSeconds ?? 5) * 1000,
    maximumConnections: options.maximumConnections ?? 64,
  });
  const ask = options.cache === undefined ? request.ask : cached(request.ask, options.cache);
  const refusals = bearerRefusals(realm);
  const refuse = (refusal: Refusal): Access => ({ outcome: 'refused', refusal });
  const tokens = new WeakMap<IncomingMessage, VerifiedToken>();

  const check = async (
    incoming: GuardedRequest,
    ...requiredScope: readonly string[]
  ): Promise<Access> => {
    const presented = readBearer(authorizationOf(incoming));
    if (presented.outcome === 'absent') return refuse(refusals.unauthenticated());
    const isDoubled = hasTokenInForm(incoming.headers['content-type'], incoming.body);
    if (presented.outcome === 'malformed' || isDoubled) {
      return refuse(refusals.refused('invalid_request'));
    }
    if (presented.outcome === 'senseless') return refuse(refusals.refused('invalid_token'));
    const answer = await ask(presented.token);
    if (answer.outcome === 'unavailable') {
      onProblem({ kind: 'unavailable', detail: answer.detail });
      return refuse(refusals.unavailable(answer.retryAfterSeconds));
    }
    if (answer.outcome === 'misconfigured') {
      onProblem({ kind: 'misconfigured', detail: answer.detail });
      return refuse(refusals.misconfigured());
    }
    const token = verifiedToken(answer.claims, audience);
    if (token === undefined) return refuse(refusals.refused('invalid_token'));
    if (!requiredScope.every((each) => token.scope.has(each))) {
      return refuse(refusals.refused('insufficient_scope', requiredScope));
    }
    return { outcome: 'granted', token };
  };

  return {
    check,
    requireScope(...requiredScope) {
      assertChallengeable(realm, requiredScope);
      return (incoming, response, next) => {
        check(incoming, ...requiredScope).then((access) => {
          // Somebody else has answered meanwhile, a time limit for instance.
          if (response.headersSent) return;
          if (access.outcome === 'refused') return sendRefusal(response, access.refusal);
          tokens.set(incoming, access.token);
          next();
        }, next);
      };
    },
    tokenOf(incoming) {
      const token = tokens.get(incoming);
      if (token === undefined) throw new TypeError('the request did not pass requireScope()');
      return token;
    },
    close: request.close,
  };
}

/** The name of the protected space that challenges show. */
export const realmOf = ({ audience, realm = audience ?? 'api' }: TokenGuardOptions): string =>
  realm;

const warn = ({ kind, detail }: GuardProblem): void =>
  emitWarning(`introspection failed, ${kind}: ${detail}`, 'HeirloomWarning');

/** Sends a refusal as the answer to a request of `node:http` or Express. */
export function sendRefusal(response: ServerResponse, { status, headers, body }: Refusal): void {
  response.writeHead(status, headers).end(JSON.stringify(body));
}

/** Node keeps the first of two `Authorization` fields; both are wanted, to refuse them. */
const authorizationOf = ({ headers, headersDistinct }: GuardedRequest): readonly string[] =>
  headersDistinct?.['authorization'] ??
  (headers.authorization === undefined ? [] : [headers.authorization]);

/**
 * An active answer as a token, or undefined where the token is not one for this API: inactive, not a
 * Bearer token (a refresh token is not, RFC 6749 §1.5), or meant for somebody else.
 */
function verifiedToken(claims: Claims, audience: string | undefined): VerifiedToken | undefined {
  if (!claims.active) return undefined;
  const { token_type, scope, client_id, sub, aud, exp } = claims;
  if (typeof token_type !== 'string' || token_type.toLowerCase() !== 'bearer') return undefined;
  const audiences = (Array.isArray(aud) ? aud : [aud]).filter(isText);
  if (audience !== undefined && !audiences.includes(audience)) return undefined;
  return {
    scope: new Set(isText(scope) ? scope.split(' ').filter((each) => each !== '') : []),
    clientId: isText(client_id) ? client_id : undefined,
    subject: isText(sub) ? sub : undefined,
    audience: audiences,
    expiresAt: typeof exp === 'number' ? new Date(exp * 1000) : undefined,
    claims,
  };
}

const isText = (value: unknown): value is string => typeof value === 'string';

const loopback = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/;

function endpointOf({ introspectionEndpoint, allowPlainHttp }: TokenGuardOptions): URL {
  const endpoint = new URL(introspectionEndpoint);
  const isPlain = endpoint.protocol === 'http:';
  if (!isPlain && endpoint.protocol !== 'https:') {
    throw new TypeError('introspectionEndpoint is neither https nor http');
  }
  if (endpoint.username !== '' || endpoint.password !== '') {
    throw new TypeError('introspectionEndpoint holds credentials; use clientId and clientSecret');
  }
  if (isPlain && !loopback.test(endpoint.hostname) && allowPlainHttp !== true) {
    throw new TypeError(
      'introspectionEndpoint is plain http to another machine; use https, or allowPlainHttp',
    );
  }
  return endpoint;
}
