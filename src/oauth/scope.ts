/** Scope as a set of case-sensitive tokens, RFC 6749 §3.3. */
import { invalidScope } from './errors.ts';

/** An unordered set of scope-tokens; iteration order is the order of first mention. */
export type Scope = ReadonlySet<string>;

/** RFC 6749 §3.3: scope-token = 1*( %x21 / %x23-5B / %x5D-7E ). */
const scopeToken = /^[\x21\x23-\x5b\x5d-\x7e]+$/;

/** Tells whether the text is one scope-token of RFC 6749 §3.3. */
export const isScopeToken = (text: string): boolean => scopeToken.test(text);

/**
 * Parses `scope-token *( SP scope-token )`.
 *
 * @throws OAuthError `invalid_scope` for anything outside the grammar: empty text, other or doubled
 *   spaces, quotes, backslashes, characters that are not ASCII
 * @see RFC 6749 §3.3
 */
export function parseScope(text: string): Scope {
  const tokens = text.split(' ');
  if (!tokens.every(isScopeToken)) throw invalidScope('scope is outside the grammar');
  return new Set(tokens);
}

/** Writes a scope as it goes on the wire and into the database. */
export const formatScope = (scope: Scope): string => [...scope].join(' ');

/** Tells whether every token of `part` is in `whole`. */
export function isWithinScope(part: Scope, whole: Scope): boolean {
  for (const token of part) if (!whole.has(token)) return false;
  return true;
}

/**
 * Decides what is granted: all that may be granted when nothing was requested, else the request.
 *
 * @throws OAuthError `invalid_scope` if the request exceeds `grantableScope`
 * @see RFC 6749 §3.3, §6
 */
export function grantScope(requestedScope: Scope | undefined, grantableScope: Scope): Scope {
  if (requestedScope === undefined) return grantableScope;
  if (!isWithinScope(requestedScope, grantableScope)) {
    throw invalidScope('requested scope exceeds what may be granted');
  }
  return requestedScope;
}
