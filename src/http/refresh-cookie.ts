/** The cookie that carries a refresh token, RFC 6265bis and OAuth 2.0 for Browser-Based Applications §6.1.3.2. */
import '@fastify/cookie';
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { BrowserRequest } from '../oauth/cookie-delivery.ts';
import type { IssuedRefreshToken } from '../oauth/grants/grant.ts';
import { digest } from '../oauth/opaque-token.ts';

/** What apps in cookie mode send, with the value `1`, to show that a script of theirs made the request. */
export const CSRF_HEADER = 'x-heirloom-csrf';

/** Where the cookie is sent; `/` unless the server shares its origin with an app. */
export type CookiePath = `/${string}`;

/**
 * Names the cookie of a client: two apps on one host must not sign each other out.
 *
 * A browser takes `__Host-` only from the host itself, for every path and over TLS, so that no sibling
 * subdomain can plant one. Below another path it takes no more than `__Secure-`.
 */
export function refreshCookieName(clientId: string, path: CookiePath): string {
  const prefix = path === '/' ? '__Host-' : '__Secure-';
  return `${prefix}heirloom_refresh_${digest(clientId).toString('hex').slice(0, 16)}`;
}

/** Reads what a browser says about a request, and the cookies of the client that it names. */
export function readBrowserRequest(
  { headers }: FastifyRequest,
  clientId: string | undefined,
  path: CookiePath,
): BrowserRequest {
  const { origin, cookie } = headers;
  return {
    origin,
    fetchSite: singleHeader(headers['sec-fetch-site']),
    csrfHeader: singleHeader(headers[CSRF_HEADER]),
    refreshCookies:
      cookie === undefined || clientId === undefined
        ? []
        : cookieValues(cookie, refreshCookieName(clientId, path)),
  };
}

/** Node joins a repeated header with commas; what is not one value is no value that counts. */
const singleHeader = (value: string | string[] | undefined): string | undefined =>
  Array.isArray(value) ? value.join() : value;

/**
 * Every value of one name, as they are; an ordinary parser keeps one of them, and the browser decides which.
 * An empty one is no token.
 */
export const cookieValues = (header: string, name: string): string[] =>
  header
    .split(';')
    .map((pair) => pair.trim())
    .filter((pair) => pair.startsWith(`${name}=`) && pair.length > name.length + 1)
    .map((pair) => pair.slice(name.length + 1));

const attributes = (path: CookiePath) =>
  ({ path, secure: true, httpOnly: true, sameSite: 'strict' }) as const;

/** Sets the cookie. It ends no later than the token in it. */
export function setRefreshCookie(
  reply: FastifyReply,
  { clientId, path }: { readonly clientId: string; readonly path: CookiePath },
  { text, expiresInSeconds }: IssuedRefreshToken,
): void {
  reply.setCookie(refreshCookieName(clientId, path), text, {
    ...attributes(path),
    maxAge: Math.max(0, expiresInSeconds),
  });
}

/** Clears the cookie: a browser replaces one only by one with the same name and path. */
export function clearRefreshCookie(
  reply: FastifyReply,
  { clientId, path }: { readonly clientId: string; readonly path: CookiePath },
): void {
  reply.setCookie(refreshCookieName(clientId, path), '', { ...attributes(path), maxAge: 0 });
}
