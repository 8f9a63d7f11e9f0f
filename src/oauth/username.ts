/** User names, RFC 6749 Appendix A.15 and RFC 8265 §3.3. */

/**
 * The form in which user names are stored and compared: NFC and lower case.
 *
 * Nothing is trimmed and no look-alikes are folded: a name with a Cyrillic letter or an invisible
 * character stays another name and never finds somebody else's account.
 */
export const normalizeUsername = (username: string): string =>
  username.normalize('NFC').toLowerCase().normalize('NFC');

/**
 * Longer texts are nobody's name or password (255 and 256 characters) and are not even normalised:
 * NFC takes quadratic time on sequences of combining marks.
 */
export const MAXIMUM_NORMALIZED_UNITS = 1024;
