/** A grant type: one module with one function, RFC 6749 §4. */
import type { Client, GrantType } from '../client.ts';
import type { PresentedClientCredentials } from '../client-authentication.ts';
import type { BrowserRequest } from '../cookie-delivery.ts';
import type { PresentedToken } from '../opaque-token.ts';
import type { LookUp, RequestOrigin } from '../ports.ts';
import type { Scope } from '../scope.ts';

/** A token request after its syntax was checked; parameters that were empty are undefined (RFC 6749 §3.2). */
export interface TokenRequest {
  readonly grantType: string;
  readonly credentials: PresentedClientCredentials | undefined;
  readonly scope: string | undefined;
  readonly username: string | undefined;
  readonly password: string | undefined;
  readonly refreshToken: string | undefined;
  readonly origin: RequestOrigin;
  readonly browser: BrowserRequest;
  /** Told whom the request comes from once that is proven, so that it can be answered accordingly. */
  readonly noteClient: (client: Client) => void;
  /**
   * Asked once the client is authenticated, so that nobody else can use up what it may ask for.
   *
   * @param heldFamilyId the family of the refresh token that is shown, if it is one of this client's: what
   *   was made up must not use up what they may ask for, or a retry would be refused until it is a replay
   * @throws Error when there are too many requests of its kind; the grant is not asked then
   */
  readonly checkLimit: (client: Client, heldFamilyId: string | undefined) => Promise<void>;
  /** Tells whether the caller has gone or has waited too long: such a request is dropped, not judged. */
  readonly isAbandoned: () => boolean;
}

/** A token request whose client is authenticated and may use the grant. */
export interface AuthenticatedTokenRequest extends TokenRequest {
  readonly client: Client;
  readonly requestedScope: Scope | undefined;
  readonly presentedToken: PresentedToken | undefined;
  readonly lookUp: LookUp;
}

/** A refresh token in clear; its digests alone are stored. */
export interface IssuedRefreshToken {
  readonly text: string;
  /** Until the family is idle for too long or over, whichever comes first; rounded down. */
  readonly expiresInSeconds: number;
}

/** A successful answer, RFC 6749 §5.1, and what the log may say about it. */
export interface IssuedTokens {
  readonly accessToken: string;
  readonly expiresInSeconds: number;
  readonly refreshToken: IssuedRefreshToken | undefined;
  readonly grantedScope: Scope;
  readonly event: 'login' | 'refresh' | 'refresh_retry';
  readonly clientId: string;
  readonly familyId: string;
  readonly subject: string | undefined;
}

/** One way to get tokens; a client may use those that it was registered for. */
export interface Grant {
  readonly grantType: GrantType;
  /**
   * Runs a request from its first look-up on, while there are not too many of this grant.
   *
   * @throws TemporarilyUnavailable at once otherwise
   */
  readonly admit?: <T>(request: () => Promise<T>) => Promise<T>;
  issue(request: AuthenticatedTokenRequest): Promise<IssuedTokens>;
}
