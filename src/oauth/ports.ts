/** What the protocol needs from the outside. Implemented in `storage/` and `crypto/`. */
import type { Client } from './client.ts';
import type { SecurityEventKind } from './errors.ts';
import type { PresentedToken } from './opaque-token.ts';
import type { Scope } from './scope.ts';
import type { ServicePulse, TokenFamily } from './token-family.ts';

/** What one request needs to know, read by one statement after the request arrived. */
export interface LookUp {
  /** The database's clock when the statement ran; every expiry is judged by it. */
  readonly now: Date;
  /** The calling client, unless unknown, disabled or deleted. Its credentials are not verified yet. */
  readonly client: Client | undefined;
  readonly family: TokenFamily | undefined;
  readonly accessToken: AccessToken | undefined;
  readonly pulse: ServicePulse;
}

/** What to read: a client, and the family of a token with the access token in question. */
export interface LookUpRequest {
  readonly clientId: string | undefined;
  readonly token: PresentedToken | undefined;
  /** Asks for this access token of the family, when `token` is not one itself. */
  readonly accessTokenDigest?: Buffer;
}

/** An access token that has not been revoked. It is good only while its family is alive too. */
export interface AccessToken {
  readonly scope: Scope;
  readonly issuedAt: Date;
  readonly expiresAt: Date;
}

/** Where a request comes from; kept with a family so that people recognise their sessions. */
export interface RequestOrigin {
  readonly address: string;
  /** What one party is likely to hold as a whole: an IPv4 address, or the /64 of an IPv6 one. */
  readonly network: string;
  readonly userAgent: string | undefined;
  /** What the client calls the device, e.g. "Alice's phone". */
  readonly deviceLabel: string | undefined;
}

/** An access token to be stored; it lives as long as its client's setting says, and not longer than its family. */
export interface NewAccessToken {
  readonly digest: Buffer;
  readonly scope: Scope;
}

/** A grant to be stored with its first tokens; lifetimes and audience are the client's. */
export interface NewFamily {
  readonly familyId: string;
  readonly client: Client;
  readonly resourceOwner: ResourceOwner;
  readonly scope: Scope;
  /** Undefined where the client may not refresh. */
  readonly refreshToken: { readonly lineageDigest: Buffer; readonly digest: Buffer } | undefined;
  readonly accessTokenDigest: Buffer;
  readonly origin: RequestOrigin;
}

/** The exchange of a family's current refresh token for its successor, if it still is current. */
export interface Rotation {
  readonly familyId: string;
  /** `FamilyLineage.place`, as read when the decision was made. */
  readonly place: string;
  readonly client: Client;
  readonly presentedDigest: Buffer;
  readonly successorDigest: Buffer;
  readonly successorSalt: Buffer;
  readonly accessToken: NewAccessToken;
}

/** An access token beside the current refresh token, for a retry that cannot have the derived one. */
export interface AdditionalAccessToken {
  readonly familyId: string;
  readonly client: Client;
  /** Nothing is issued unless this still is the family's current refresh token. */
  readonly currentDigest: Buffer;
  readonly accessToken: NewAccessToken;
}

/** `lost`: the family changed since it was read; read it again and decide again. */
export type IssueOutcome =
  | {
      readonly outcome: 'issued';
      readonly accessTokenExpiresInSeconds: number;
      /** Rounded down; also where the grant gives no refresh token. */
      readonly refreshTokenExpiresInSeconds: number;
    }
  | { readonly outcome: 'lost' };

/** Why a family has ended; kept with it. */
export type RevocationReason =
  | 'revoked'
  | 'replay'
  | 'password_changed'
  | 'disabled'
  | 'session_limit'
  | 'administrator';

/** What a revocation has ended, for the log. */
export interface EndedFamily {
  /** Where the family was started from, to compare with whoever ended it. */
  readonly address: string | undefined;
}

/** Something about one family that somebody should look at. */
export interface SecurityEvent {
  readonly kind: SecurityEventKind;
  readonly familyId: string;
  readonly client: Client;
  readonly origin: RequestOrigin;
}

/**
 * Token families and their tokens.
 *
 * Every method throws `TemporarilyUnavailable` when the database does not answer; whether a write
 * happened is then unknown, and the caller must not repeat it.
 */
export interface TokenStore {
  /** Reads what is asked for, at one instant after the call; never from a cache or a standby. */
  lookUp(request: LookUpRequest): Promise<LookUp>;
  /** Stores a family. `lost`: its person was disabled, deleted or given another password since they were read. */
  startFamily(family: NewFamily): Promise<IssueOutcome>;
  /** Replaces the presented token by its successor if it still is current and the family is alive. */
  rotate(rotation: Rotation): Promise<IssueOutcome>;
  /** Issues an access token for a retry and leaves the refresh token as it is. */
  issueAdditionalAccessToken(request: AdditionalAccessToken): Promise<IssueOutcome>;
  /**
   * Ends a family for good, with the event that explains it.
   *
   * @returns what was ended, or undefined if it had ended before
   */
  revokeFamily(
    familyId: string,
    reason: RevocationReason,
    event?: SecurityEvent,
  ): Promise<EndedFamily | undefined>;
  /** False if there is no such token or it was revoked before. */
  revokeAccessToken(familyId: string, accessTokenDigest: Buffer): Promise<boolean>;
  /**
   * Records an event about a family that goes on. Nothing waits for it, so that the time of an answer
   * does not tell that there was one, and it never fails: the log has the event too.
   */
  recordSecurityEvent(event: SecurityEvent): void;
  /** Marks a client secret as in use, at most once a minute; nothing waits for it and it never fails. */
  noteSecretUse(client: Client, secretDigest: Buffer): void;
  /** Writes a sign of life, and the outage if the previous one is too old. */
  recordPulse(): Promise<void>;
}

/** An origin that at least one client has registered which is neither disabled nor deleted. */
export interface RegisteredOrigin {
  /** One of those clients has its refresh token delivered by cookie. */
  readonly hasCookieClient: boolean;
}

/** Tells which origins' scripts may read an answer to a request that names no client. */
export interface OriginStore {
  /** @throws TemporarilyUnavailable if the database does not answer in time and never has about this origin */
  find(origin: string, seconds: number): Promise<RegisteredOrigin | undefined>;
}

/** A person as read before their password is verified. */
export interface ResourceOwner {
  /** `sub`: stable, never given to anybody else. */
  readonly subject: string;
  readonly username: string;
  /** argon2id PHC string; undefined for somebody who has no password. */
  readonly passwordHash: string | undefined;
  /** Moves with every password change, disable and enable. */
  readonly credentialVersion: number;
  readonly isDisabled: boolean;
}

/** People, as logins need them. Throws `TemporarilyUnavailable` as `TokenStore` does. */
export interface ResourceOwnerStore {
  /** Finds by the normalised form of the name (NFC, lower case). */
  findByUsername(username: string): Promise<ResourceOwner | undefined>;
  /** Replaces a hash by one with current parameters, unless the password was changed meanwhile. */
  upgradePasswordHash(owner: ResourceOwner, passwordHash: string): Promise<void>;
}

/** A password that is about to be verified. */
export interface LoginAttempt {
  /** Undefined for a name that belongs to nobody, which is counted all the same. */
  readonly subject: string | undefined;
  /** SHA-256 of the normalised name. */
  readonly usernameDigest: Buffer;
  readonly network: string;
  readonly clientId: string;
}

/** `reserved`: counted as a failure already, so that parallel guesses cannot slip past. */
export type LoginReservation =
  | { readonly outcome: 'refused'; readonly retryAfterSeconds: number }
  | {
      readonly outcome: 'reserved';
      /** The password was wrong. Answers what is to be logged about it, once a window. */
      failed(): SecurityEventKind | undefined;
      /** It was right: clears the account's counters. Never rejects. */
      succeeded(): Promise<void>;
      /** It was not verified at all: takes the count back. Never rejects. */
      released(): Promise<void>;
    };

/** One failed authentication of a client, for the count. */
export interface FailedClientAuthentication {
  /** What was said, whether there is such a client or not. */
  readonly presentedName: string | undefined;
  /** Undefined unless there is such a client. */
  readonly clientId: string | undefined;
  readonly network: string;
}

/** Undefined while there were few enough. */
export interface ClientFailures {
  readonly retryAfterSeconds: number | undefined;
  readonly securityEvent: SecurityEventKind | undefined;
}

/** Counts failed credentials, exactly and for all instances together. */
export interface FailureCounters {
  /** @throws TemporarilyUnavailable when nobody can count: guesses are never unlimited */
  reserveLogin(attempt: LoginAttempt): Promise<LoginReservation>;
  /** Never rejects: a client that failed to authenticate is refused anyway. */
  countClientFailure(failure: FailedClientAuthentication): Promise<ClientFailures>;
}

/**
 * Hashes are slow on purpose: both methods wait for their turn and shed load with
 * `TemporarilyUnavailable`. Whoever is abandoned when the turn comes is not hashed.
 */
export interface PasswordHasher {
  hash(password: string): Promise<string>;
  /** Costs the same when there is no hash to verify against, so that time tells nothing. */
  verify(
    password: string,
    passwordHash: string | undefined,
    isAbandoned: () => boolean,
  ): Promise<PasswordVerdict>;
}

/** `unreadable`: the stored hash is damaged, which is our fault and must not look like another answer. */
export type PasswordVerdict = 'match' | 'match-needs-rehash' | 'mismatch' | 'unreadable';
