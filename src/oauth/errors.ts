/** The refusals of the protocol, RFC 6749 §5.2, and the one answer for trouble that is ours. */

/**
 * Error codes that RFC 6749 §5.2 defines for the token endpoint; RFC 7009 and RFC 7662 reuse them.
 *
 * `access_denied` is answered to a request that a browser may have been tricked into. RFC 6749 §4.1.2.1
 * registers it and RFC 8628 §3.5 brings it to the token endpoint. Of the registered codes it alone says
 * neither that the request is malformed nor that the token is bad, which would make an app drop it.
 */
export type OAuthErrorCode =
  | 'invalid_request'
  | 'invalid_client'
  | 'invalid_grant'
  | 'unauthorized_client'
  | 'unsupported_grant_type'
  | 'invalid_scope'
  | 'access_denied';

/**
 * Constant texts for `error_description`: inside RFC 6749 §5.2's character set and never built from
 * input, so they can neither break a header or a log nor answer an attacker's question.
 */
const descriptions: Readonly<Record<OAuthErrorCode, string>> = {
  invalid_request:
    'The request is missing a parameter, repeats a parameter, or is otherwise malformed.',
  invalid_client: 'Client authentication failed.',
  invalid_grant:
    'The credentials or the token are invalid, expired, revoked, or were issued to another client.',
  unauthorized_client: 'This client may not use this grant type.',
  unsupported_grant_type: 'This grant type is not supported.',
  invalid_scope: 'The requested scope is malformed, unknown, or exceeds what may be granted.',
  access_denied: "The request does not come from one of this client's own apps.",
};

/** What the log may say about a refusal. Never a token, a secret or a password. */
export interface RefusalContext {
  readonly clientId?: string | undefined;
  readonly familyId?: string | undefined;
  readonly subject?: string | undefined;
  /** Where the family was started from, beside the address that the request came from. */
  readonly familyAddress?: string | undefined;
  /** Stands for a user name that belongs to nobody and may be somebody's password, typed too early. */
  readonly usernameDigest?: string | undefined;
  /** Names the refusal in the log; `refused` when there is nothing more to say. */
  readonly event?: 'login_failed' | 'refresh_failed' | 'client_authentication_failed' | undefined;
  /** The refresh token was this client's own and its family is over: nothing will make it good again. */
  readonly isSessionOver?: boolean | undefined;
  /** The refusal is right and its cause is damage on our side; logged at `error`. */
  readonly isFault?: boolean | undefined;
  /** Set when the refusal means that somebody may be attacking; logged at `warn`. */
  readonly securityEvent?: SecurityEventKind | undefined;
}

/** Kinds of events that somebody should look at; the durable ones are rows of `security_event`. */
export type SecurityEventKind =
  | 'refresh_token_replay'
  | 'refresh_token_of_another_client'
  | 'password_guessing'
  | 'password_spraying'
  | 'client_secret_guessing';

/** A refusal that the protocol defines. `description` is for the client, `detail` for the log only. */
export class OAuthError extends Error {
  override readonly name = 'OAuthError';
  readonly code: OAuthErrorCode;
  readonly description: string;
  readonly detail: string;
  readonly context: RefusalContext;

  constructor(code: OAuthErrorCode, detail: string, context: RefusalContext = {}) {
    super(`${code}: ${detail}`);
    this.code = code;
    this.description = descriptions[code];
    this.detail = detail;
    this.context = context;
  }
}

/** RFC 6749 §5.2: malformed, incomplete or ambiguous request. */
export const invalidRequest = (detail: string, context?: RefusalContext) =>
  new OAuthError('invalid_request', detail, context);

/** RFC 6749 §5.2: unknown client, no or failed client authentication. */
export const invalidClient = (detail: string, context?: RefusalContext) =>
  new OAuthError('invalid_client', detail, context);

/** RFC 6749 §5.2: wrong password, or a refresh token that is not (or no longer) good for this client. */
export const invalidGrant = (detail: string, context?: RefusalContext) =>
  new OAuthError('invalid_grant', detail, context);

/** RFC 6749 §5.2: the authenticated client was not registered for this grant. */
export const unauthorizedClient = (detail: string, context?: RefusalContext) =>
  new OAuthError('unauthorized_client', detail, context);

/** RFC 6749 §5.2: a grant type that this server does not have, or has switched off. */
export const unsupportedGrantType = (detail: string, context?: RefusalContext) =>
  new OAuthError('unsupported_grant_type', detail, context);

/** RFC 6749 §5.2 and §3.3: malformed, unknown or excessive scope. */
export const invalidScope = (detail: string, context?: RefusalContext) =>
  new OAuthError('invalid_scope', detail, context);

/** RFC 6749 §4.1.2.1, with status 403: not from the client's own app, see `OAuthErrorCode`. */
export const accessDenied = (detail: string, context?: RefusalContext) =>
  new OAuthError('access_denied', detail, context);

/**
 * Trouble that is ours (database, overload) and says nothing about the caller's credentials: 503.
 * Clients keep their token and try again; a 4xx would make many of them sign the person out.
 */
export class TemporarilyUnavailable extends Error {
  override readonly name = 'TemporarilyUnavailable';
  readonly retryAfterSeconds: number;

  constructor(detail: string, options: { retryAfterSeconds?: number; cause?: unknown } = {}) {
    super(detail, { cause: options.cause });
    this.retryAfterSeconds = options.retryAfterSeconds ?? 1;
  }
}

/**
 * Too many failed credentials: 429, which says nothing about those that were just shown. RFC 6749 has no
 * code for it (RFC 6585 §4).
 */
export class TooManyFailures extends Error {
  override readonly name = 'TooManyFailures';
  readonly retryAfterSeconds: number;
  readonly context: RefusalContext;

  constructor(detail: string, retryAfterSeconds: number, context: RefusalContext = {}) {
    super(detail);
    this.retryAfterSeconds = retryAfterSeconds;
    this.context = context;
  }
}
