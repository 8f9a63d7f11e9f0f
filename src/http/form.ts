/**
 * Strict parsing of `application/x-www-form-urlencoded`, RFC 6749 Appendix B.
 *
 * Ordinary parsers repair what they do not understand: bad escapes become text, bad UTF-8 becomes
 * U+FFFD, repeated names become arrays. Here a name has one value or the request is refused.
 */
import { isAscii, isUtf8 } from 'node:buffer';
import { hasControlCharacters } from '../oauth/characters.ts';
import { invalidRequest } from '../oauth/errors.ts';

/** A parsed body. Names that were sent more than once are told apart, whatever their values. */
export interface Form {
  readonly values: ReadonlyMap<string, string>;
  readonly repeated: ReadonlySet<string>;
}

export const emptyForm: Form = { values: new Map(), repeated: new Set() };

/**
 * Parses a body.
 *
 * @throws OAuthError `invalid_request` for malformed percent escapes and for octets that are not UTF-8
 */
export function parseForm(body: Buffer): Form {
  const text = decodeText(body);
  const values = new Map<string, string>();
  let repeated: Set<string> | undefined;
  let start = 0;
  while (start < text.length) {
    const ampersand = text.indexOf('&', start);
    const end = ampersand === -1 ? text.length : ampersand;
    const pair = text.slice(start, end);
    start = end + 1;
    if (pair === '') continue;
    const equals = pair.indexOf('=');
    const name = decodeFormComponent(equals === -1 ? pair : pair.slice(0, equals));
    const value = equals === -1 ? '' : decodeFormComponent(pair.slice(equals + 1));
    if (name === undefined || value === undefined) throw invalidRequest('malformed percent escape');
    if (!values.has(name)) values.set(name, value);
    else repeated = (repeated ?? new Set()).add(name);
  }
  return { values, repeated: repeated ?? noNames };
}

const noNames: ReadonlySet<string> = new Set();

function decodeText(body: Buffer): string {
  // Nearly every body is ASCII, for which both the check and the decoding cost less.
  if (isAscii(body)) return body.toString('latin1');
  if (!isUtf8(body)) throw invalidRequest('body is not UTF-8');
  return body.toString('utf8');
}

/** Decodes one name or value; undefined for a malformed escape or escaped octets that are not UTF-8. */
export function decodeFormComponent(encoded: string): string | undefined {
  const spaced = encoded.includes('+') ? encoded.replaceAll('+', ' ') : encoded;
  if (!spaced.includes('%')) return spaced;
  try {
    return decodeURIComponent(spaced);
  } catch {
    return undefined;
  }
}

/**
 * Picks the parameters that this server knows; all others are ignored (RFC 6749 §3.2).
 *
 * A parameter sent without a value counts as omitted.
 *
 * @throws OAuthError `invalid_request` if one of them is repeated or holds control characters
 */
export function readParameters<Name extends string>(
  form: Form,
  names: readonly Name[],
): Partial<Record<Name, string>> {
  const parameters: Partial<Record<Name, string>> = {};
  for (const name of names) {
    if (form.repeated.has(name)) throw invalidRequest(`${name} is repeated`);
    const value = form.values.get(name);
    if (value === undefined || value === '') continue;
    if (hasControlCharacters(value)) throw invalidRequest(`${name} holds control characters`);
    parameters[name] = value;
  }
  return parameters;
}
