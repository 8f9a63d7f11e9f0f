/** An access token as the client keeps it: in memory, by a clock that nobody sets. */
import type { TokenResponse } from './authorization-server.ts';

export interface AccessToken {
  readonly text: string;
  /** By `performance.now()`, from the moment before it was asked for: the server's clock never counts. */
  readonly expiresAtMilliseconds: number;
  /** From here on the next one is fetched while this one is still good. */
  readonly renewAtMilliseconds: number;
}

/** At most this long before its end a token is renewed; a short-lived one in its last quarter. */
const MAXIMUM_RENEWAL_MARGIN_MILLISECONDS = 60_000;

/** @param lifeMilliseconds what is left of the token's life, counted from `now` */
export function accessToken(text: string, lifeMilliseconds: number, now: number): AccessToken {
  const margin = Math.min(MAXIMUM_RENEWAL_MARGIN_MILLISECONDS, lifeMilliseconds / 4);
  const expiresAtMilliseconds = now + lifeMilliseconds;
  return {
    text,
    expiresAtMilliseconds,
    renewAtMilliseconds: expiresAtMilliseconds - margin,
  };
}

/** @param askedAt by `performance.now()`: the time that the answer took counts as lived */
export const fromResponse = (
  { accessToken: text, expiresInSeconds }: TokenResponse,
  askedAt: number,
): AccessToken => accessToken(text, expiresInSeconds * 1000, askedAt);

/** Characters that hold nothing but the family's 128 bits; the next one shares its bits with the secret. */
const FAMILY_CHARACTERS = 21;

/**
 * Names the login that a token descends from, so that a tab notices when the person in another tab is
 * somebody else. The name is public; undefined for a token of another make, about which nothing is known.
 */
export const loginOf = (text: string): string | undefined =>
  /^hat_[A-Za-z0-9_-]{22,}$/.test(text) ? text.slice(4, 4 + FAMILY_CHARACTERS) : undefined;

/** Tells whether two tokens surely come from different logins. */
export function isOtherLogin(one: string, other: string): boolean {
  const [first, second] = [loginOf(one), loginOf(other)];
  return first !== undefined && second !== undefined && first !== second;
}
