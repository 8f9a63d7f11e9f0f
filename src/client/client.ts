/**
 * `heirloom/client`: keeps a person signed in. It fetches access tokens with a login or a refresh token,
 * renews them in time and hands them to requests. For browsers and Node; no dependencies.
 */
import { authorizationServerEndpoints } from './authorization-server.ts';
import { type ApiAccess, authorizedFetch } from './authorized-fetch.ts';
import { type AxiosLike, attachToAxios } from './axios.ts';
import {
  memoryRefreshTokenStore,
  type RefreshTokenStore,
  saveInOrder,
} from './refresh-token-store.ts';
import { createSession, type PasswordLogin } from './session.ts';
import type { SignOutReason } from './tabs.ts';

export type { AxiosLike } from './axios.ts';
export { SignedOutError, TokenRequestError, UnavailableError } from './errors.ts';
export { memoryRefreshTokenStore, type RefreshTokenStore } from './refresh-token-store.ts';
export type { PasswordLogin } from './session.ts';
export type { SignOutReason } from './tabs.ts';

/** Which authorization server, as which client, and for which APIs. */
export interface TokenClientOptions {
  /** The authorization server, e.g. `https://auth.example`. */
  readonly authorizationServer: string | URL;
  readonly clientId: string;
  /** For confidential clients on a server only: in a browser everybody can read it. */
  readonly clientSecret?: string;
  /**
   * How the client was registered. `cookie`, for apps in browsers: the refresh token is a cookie that no
   * script can read. `body`: it comes in the response and is kept in `refreshTokenStore`.
   */
  readonly delivery: 'cookie' | 'body';
  /** Only for delivery in the body. In memory, if left out. */
  readonly refreshTokenStore?: RefreshTokenStore;
  /** Origins that get the access token, e.g. `https://api.example`. No other host ever sees one. */
  readonly apiOrigins: readonly string[];
  /** Somebody is signed in: by `login`, by `resume`, or in another tab. */
  readonly onSignedIn?: () => void;
  /** Nobody is signed in any more: show the login page. Trouble with the network is no reason. */
  readonly onSignedOut?: (reason: SignOutReason) => void;
  /** How long one request to the authorization server may take. Default 10. */
  readonly requestTimeoutSeconds?: number;
  /** How long a refresh is repeated while the authorization server does not answer. Default 60. */
  readonly patienceSeconds?: number;
  /** In place of the global one; it must take a `Request` of the global class. */
  readonly fetch?: typeof globalThis.fetch;
}

/** One person's session in an app, in step with its other tabs. */
export interface TokenClient {
  readonly isSignedIn: boolean;
  /**
   * Logs a person in.
   *
   * @throws TokenRequestError with code `invalid_grant` for a wrong name or password; UnavailableError;
   *   SignedOutError when `logout` was called meanwhile, here or in another tab
   */
  login(login: PasswordLogin): Promise<void>;
  /**
   * Takes up the session that a cookie, a store or another tab still holds, e.g. when a page is loaded.
   *
   * @returns whether somebody is signed in
   * @throws UnavailableError when nobody knows
   */
  resume(): Promise<boolean>;
  /**
   * A good access token, for what `fetch` cannot do. Never put it into a URL.
   *
   * @throws SignedOutError, UnavailableError
   */
  accessToken(): Promise<string>;
  /** `fetch` with the access token for `apiOrigins`, renewed once on a 401. @throws as `accessToken` */
  readonly fetch: typeof globalThis.fetch;
  /** The same for the requests of an instance of axios 1. */
  attachToAxios(axios: AxiosLike): void;
  /**
   * Ends the session here, in the other tabs and at the authorization server.
   *
   * @throws UnavailableError when the server has not confirmed it; nobody is signed in here all the same,
   *   and calling again tries again
   */
  logout(): Promise<void>;
  /** Lets go of the other tabs. */
  close(): void;
}

/** A service that restarts is back within seconds; longer steps would only make people wait. */
const FIRST_DELAY_MILLISECONDS = 250;
const MAXIMUM_DELAY_MILLISECONDS = 5000;

/**
 * `localhost:3000` is a URL too, with the scheme `localhost:`. All URLs without a host have the same
 * origin `null`, so that one of them would let every other have the token.
 */
function originOf(url: string): string {
  const { origin, protocol } = new URL(url);
  if (protocol !== 'https:' && protocol !== 'http:') {
    throw new TypeError('an origin in apiOrigins is neither https nor http');
  }
  return origin;
}

/**
 * Builds the client of one app; nobody is signed in before `login` or `resume`.
 *
 * @throws TypeError for options that do not fit together, and for an origin that is no http or https URL
 */
export function createTokenClient(options: TokenClientOptions): TokenClient {
  const isCookie = options.delivery === 'cookie';
  if (isCookie && (options.clientSecret ?? options.refreshTokenStore) !== undefined) {
    throw new TypeError('delivery by cookie has neither a client secret nor a refreshTokenStore');
  }
  // A method of `window` must be called as one.
  const fetch = options.fetch ?? ((input, init) => globalThis.fetch(input, init));
  const endpoints = authorizationServerEndpoints({
    ...options,
    clientSecret: options.clientSecret,
    isCookieSent: isCookie,
    fetch,
    requestTimeoutMilliseconds: (options.requestTimeoutSeconds ?? 10) * 1000,
  });
  const session = createSession({
    endpoints,
    store: isCookie
      ? undefined
      : saveInOrder(options.refreshTokenStore ?? memoryRefreshTokenStore()),
    tabsName: isCookie
      ? `heirloom ${new URL(options.authorizationServer).href} ${options.clientId}`
      : undefined,
    backOff: {
      patienceMilliseconds: (options.patienceSeconds ?? 60) * 1000,
      firstDelayMilliseconds: FIRST_DELAY_MILLISECONDS,
      maximumDelayMilliseconds: MAXIMUM_DELAY_MILLISECONDS,
    },
    onSignedIn: () => options.onSignedIn?.(),
    onSignedOut: (reason) => options.onSignedOut?.(reason),
  });
  const origins = new Set(options.apiOrigins.map(originOf));
  const access: ApiAccess = { session, isApi: (url) => origins.has(new URL(url).origin) };
  return {
    get isSignedIn() {
      return session.isSignedIn;
    },
    login: session.login,
    resume: session.resume,
    accessToken: session.current,
    fetch: authorizedFetch(access, fetch),
    attachToAxios: (axios) => attachToAxios(axios, access),
    logout: session.logout,
    close: session.close,
  };
}
