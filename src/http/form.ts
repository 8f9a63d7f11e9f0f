/**
 * Strict parsing of `application/x-www-form-urlencoded`, RFC 6749 Appendix B.
 *
 * Ordinary parsers repair what they do not understand: bad escapes become text, bad UTF-8 becomes
 * U+FFFD, repeated names become arrays. Here a name has one value or the request is refused.
 */
import { isUtf8 } from 'node:buffer';
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
  // Asked once: most bodies hold nothing to decode, and looking into every part would cost more.
  const decode = text.includes('%') || text.includes('+') ? decodeFormComponent : unchanged;
  const values = new Map<string, string>();
  let repeated: Set<string> | undefined;
  let equals = -1;
  for (let start = 0, end = 0; start < text.length; start = end + 1) {
    end = indexOrEnd(text, '&', start);
    if (end === start) continue;
    // Looked for anew only when it was passed: a body without any must not be searched once per pair.
    if (equals < start) equals = indexOrEnd(text, '=', start);
    const nameEnd = Math.min(equals, end);
    const name = decode(text.slice(start, nameEnd));
    const value = decode(text.slice(nameEnd + 1, end));
    if (name === undefined || value === undefined) throw invalidRequest('malformed percent escape');
    if (!values.has(name)) values.set(name, value);
    else repeated = (repeated ?? new Set()).add(name);
  }
  return { values, repeated: repeated ?? noNames };
}

const noNames: ReadonlySet<string> = new Set();

const unchanged = (text: string): string => text;

function indexOrEnd(text: string, character: string, from: number): number {
  const index = text.indexOf(character, from);
  return index === -1 ? text.length : index;
}

function decodeText(body: Buffer): string {
  const text = body.toString('utf8');
  // Sent as it is, or written by the decoder for octets that are not UTF-8.
  if (text.includes('\ufffd') && !isUtf8(body)) throw invalidRequest('body is not UTF-8');
  return text;
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
