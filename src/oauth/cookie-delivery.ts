/**
 * Cookie delivery: refresh tokens that a browser keeps where no script can read them (OAuth 2.0 for
 * Browser-Based Applications §6.1.3.2).
 *
 * A browser attaches a cookie to whatever request is made, by whomever. So a request of a client in
 * cookie mode counts only if it can be told to come from that client's own app.
 */
import type { Client } from './client.ts';
import { accessDenied, invalidRequest } from './errors.ts';

/** What a browser says about a request, and what it attached. All of it is missing elsewhere. */
export interface BrowserRequest {
  /** RFC 6454 §7; `null` for an opaque origin. */
  readonly origin: string | undefined;
  /** `Sec-Fetch-Site`; undefined from browsers that do not know it. */
  readonly fetchSite: string | undefined;
  /** The value of `X-Heirloom-CSRF`, which no form can send and no other origin without a preflight. */
  readonly csrfHeader: string | undefined;
  /**
   * Every value that came in the cookie of the named client. They are candidates: whether a cookie
   * counts is known only when the client is.
   */
  readonly refreshCookies: readonly string[];
}

/** What an app in cookie mode sends in `X-Heirloom-CSRF`; any other value counts as none. */
export const CSRF_HEADER_VALUE = '1';

/**
 * The refresh token to read together with the client, before it is known whether cookies count for it.
 * What `acceptRefreshToken` accepts afterwards is this one or none.
 */
export function candidateRefreshToken(
  inBody: string | undefined,
  { refreshCookies }: BrowserRequest,
): string | undefined {
  return inBody ?? refreshCookies[0];
}

/**
 * Tells why a request does not come from the client's own app; undefined if it does.
 *
 * The header proves that a script sent it and that, elsewhere than on our own origin, the browser asked
 * us first. The origin says whose script: a sibling subdomain is of the same site and gets the cookie
 * attached, `SameSite` or not. `Sec-Fetch-Site` cannot be forged by a page that found a way around both.
 *
 * @see OAuth 2.0 for Browser-Based Applications §6.1.3.3
 */
export function causeOfDistrust(
  { origins }: Pick<Client, 'origins'>,
  { csrfHeader, origin, fetchSite }: BrowserRequest,
): string | undefined {
  if (csrfHeader !== CSRF_HEADER_VALUE) return 'no CSRF header';
  if (origin === undefined || !origins.includes(origin)) return 'origin is not one of the client';
  if (fetchSite !== undefined && fetchSite !== 'same-origin' && fetchSite !== 'same-site') {
    return 'request from another site';
  }
  return undefined;
}

/**
 * Lets pass what a client may send: anything for delivery in the body, requests of its own app for
 * delivery by cookie. A login counts too, or somebody could log a person in as somebody else.
 *
 * @param isCookieDeliverySafe whether cookies that are `Secure` reach the server at all
 * @throws OAuthError `access_denied`
 */
export function assertOwnApp(
  client: Client,
  browser: BrowserRequest,
  isCookieDeliverySafe: boolean,
): void {
  if (client.delivery === 'body') return;
  const distrust = isCookieDeliverySafe
    ? causeOfDistrust(client, browser)
    : 'cookie client on an issuer that is neither https nor loopback';
  if (distrust !== undefined) throw accessDenied(distrust, { clientId: client.clientId });
}

/**
 * Accepts the refresh token from the one place where this client's travels; undefined if it is not there.
 *
 * @throws OAuthError `invalid_request` for a token elsewhere, and for several cookies of one name: a
 *   browser sends them when another subdomain has planted one
 */
export function acceptRefreshToken(
  { delivery, clientId }: Pick<Client, 'delivery' | 'clientId'>,
  inBody: string | undefined,
  { refreshCookies }: BrowserRequest,
): string | undefined {
  if (delivery === 'body') return inBody;
  if (inBody !== undefined) throw invalidRequest('refresh token in the body', { clientId });
  return onlyCookie(clientId, refreshCookies);
}

/** Where the token of a revocation came from. */
export interface PresentedForRevocation {
  readonly token: string | undefined;
  readonly isFromCookie: boolean;
}

/**
 * Accepts the token to revoke: the one in the body or, for a client in cookie mode, the cookie if the body
 * names none. An access token in the body means itself, though the browser attaches the cookie to it.
 *
 * @throws OAuthError `invalid_request` for a refresh token in body and cookie, of which only one can be meant,
 *   and for several cookies of one name
 */
export function acceptForRevocation(
  { delivery, clientId }: Pick<Client, 'delivery' | 'clientId'>,
  inBody: { readonly token: string | undefined; readonly isRefreshToken: boolean },
  { refreshCookies }: BrowserRequest,
): PresentedForRevocation {
  const { token, isRefreshToken } = inBody;
  if (delivery === 'body') return { token, isFromCookie: false };
  if (isRefreshToken && refreshCookies.length > 0) {
    throw invalidRequest('refresh token in body and cookie', { clientId });
  }
  if (token !== undefined) return { token, isFromCookie: false };
  const cookie = onlyCookie(clientId, refreshCookies);
  return { token: cookie, isFromCookie: cookie !== undefined };
}

function onlyCookie(clientId: string, [cookie, ...others]: readonly string[]): string | undefined {
  if (others.length > 0) throw invalidRequest('several cookies of one name', { clientId });
  return cookie;
}
