/** The client, RFC 6749 §2: who asks, and what it was registered for. */
import type { Scope } from './scope.ts';

/** RFC 6749 §2.1. */
export type ClientType = 'confidential' | 'public';

/** The grant types this server has; RFC 7591 §2 names. A client has only those it was registered for. */
export const grantTypes = ['password', 'refresh_token'] as const;
export type GrantType = (typeof grantTypes)[number];

/**
 * Whose tokens a client may introspect: nobody's; its own and those issued for its audience; any.
 *
 * @see RFC 7662 §4
 */
export type IntrospectionRight = 'none' | 'own' | 'any';

/**
 * Where a client's refresh tokens travel: in the bodies of requests and answers, or in a cookie that no
 * script can read.
 */
export type RefreshTokenDelivery = 'body' | 'cookie';

/** A registered client that is neither disabled nor deleted. */
export interface Client {
  /** The row's key; never leaves the server. */
  readonly key: number;
  readonly clientId: string;
  readonly clientType: ClientType;
  readonly grantTypes: ReadonlySet<GrantType>;
  /** What the client may ask for, and gets when it asks for nothing in particular. */
  readonly scope: Scope;
  readonly introspectionRight: IntrospectionRight;
  /** Stamped on the tokens this client gets, and what `own` lets a resource server see. */
  readonly audience: readonly string[];
  /** Serialised as in RFC 6454 §6.1: whose scripts may read answers, and send the cookie. */
  readonly origins: readonly string[];
  readonly delivery: RefreshTokenDelivery;
  /** SHA-256 of every secret that has not expired; two while a secret is being rotated. */
  readonly secretDigests: readonly Buffer[];
  readonly lifetimes: TokenLifetimes;
}

/** FAPI's conformance suite retries after 30 s; above 300 s a thief would have too much of a chance. */
export const MAXIMUM_RETRY_WINDOW_SECONDS = 300;

/** How long what this client gets is good for. */
export interface TokenLifetimes {
  readonly accessTokenLifetimeSeconds: number;
  /** A family whose refresh token is not used for this long is over. */
  readonly refreshTokenIdleLifetimeSeconds: number;
  /** A family is over this long after its first login, however often it was refreshed. */
  readonly refreshTokenLifetimeSeconds: number;
  /** How long after a rotation the spent token returns the same successor again; 0 is strict. */
  readonly retryWindowSeconds: number;
}
