/** What a token client throws. No message ever holds a token, a password or what a server wrote. */

/**
 * There is no session any more, or there never was: show the login page. A request gets it too when
 * somebody else has logged in before it was answered.
 */
export class SignedOutError extends Error {
  override readonly name = 'SignedOutError';

  constructor() {
    super('The session is over, or there was none.');
  }
}

/**
 * The authorization server refused, RFC 6749 §5.2. At a login `invalid_grant` means a wrong name or
 * password; every other code is a mistake in the configuration, and the session goes on.
 */
export class TokenRequestError extends Error {
  override readonly name = 'TokenRequestError';
  readonly status: number;
  /** The `error` member; undefined if the answer was none of RFC 6749. */
  readonly code: string | undefined;

  constructor(status: number, code: string | undefined) {
    super(`The authorization server refused: ${code ?? 'no error code'} (status ${status}).`);
    this.status = status;
    this.code = code;
  }
}

/** The authorization server could not be reached or could not answer. The session goes on; try again. */
export class UnavailableError extends Error {
  override readonly name = 'UnavailableError';
  /** What the server asked for, if it did. */
  readonly retryAfterSeconds: number | undefined;

  constructor(options: {
    readonly retryAfterSeconds?: number | undefined;
    readonly cause?: unknown;
  }) {
    const trouble =
      options.retryAfterSeconds === undefined ? 'does not answer' : 'asks to try again later';
    super(`The authorization server ${trouble}.`, { cause: options.cause });
    this.retryAfterSeconds = options.retryAfterSeconds;
  }
}
