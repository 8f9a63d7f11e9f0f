/** Which passwords may be set, NIST SP 800-63B-4 §3.1.1.2: length and obviousness, no composition rules. */
import { hasControlCharacters } from '../oauth/characters.ts';
import { MAXIMUM_NORMALIZED_UNITS } from '../oauth/username.ts';
import { normalizePassword } from './password-hasher.ts';

export const MINIMUM_PASSWORD_CHARACTERS = 15;
export const MAXIMUM_PASSWORD_CHARACTERS = 256;

const tooLong = `the password may have at most ${MAXIMUM_PASSWORD_CHARACTERS} characters`;

/** Long phrases that every guessing list begins with, without spaces and in lower case. */
const commonPhrases: ReadonlySet<string> = new Set([
  'correcthorsebatterystaple',
  'passwordpassword',
  'passwordpasswordpassword',
  'iloveyouiloveyou',
  'letmeinletmeinletmein',
  'thequickbrownfox',
  'thequickbrownfoxjumpsoverthelazydog',
  'maytheforcebewithyou',
  'tobeornottobethatisthequestion',
  'livelongandprosper',
  'winteriscoming',
  'administratoradministrator',
  'changemechangeme',
  'changemechangemechangeme',
  'qwertyuiopasdfghjkl',
  'qwertyuiopasdfghjklzxcvbnm',
  'mypasswordispassword',
  'thisismypassword',
]);

/** Runs of neighbouring characters, forwards; they are refused backwards too. */
const sequences = [
  'abcdefghijklmnopqrstuvwxyzabcdefghijklmnopqrstuvwxyz',
  '01234567890123456789012345678901234567890123456789',
  '12345678901234567890123456789012345678901234567890',
  'qwertyuiopasdfghjklzxcvbnmqwertyuiopasdfghjklzxcvbnm',
];

/**
 * Tells why a password may not be set, in words for the person who chose it; undefined if it may.
 *
 * @param username in normalised form
 */
export function passwordWeakness(password: string, username: string): string | undefined {
  if (password.length > MAXIMUM_NORMALIZED_UNITS) return tooLong;
  const normalized = normalizePassword(password);
  const characters = [...normalized].length;
  if (characters < MINIMUM_PASSWORD_CHARACTERS) {
    return `the password needs at least ${MINIMUM_PASSWORD_CHARACTERS} characters`;
  }
  if (characters > MAXIMUM_PASSWORD_CHARACTERS) {
    return tooLong;
  }
  // RFC 6749 Appendix A.16: a password with a line break or another control could never be sent.
  if (hasControlCharacters(normalized)) {
    return 'the password may not contain control characters';
  }
  const plain = normalized.toLowerCase().replaceAll(/[\s._-]+/g, '');
  if (isRepetitionOf(plain, username.replaceAll(/[\s._-]+/g, ''))) {
    return 'the password may not be the user name';
  }
  if (isRepetitionOf(plain, 'heirloom')) return "the password may not be the product's name";
  if (isRepetitive(plain)) return 'the password repeats a few characters';
  if (isSequence(plain)) return 'the password is a sequence of neighbouring characters';
  if (commonPhrases.has(plain)) return 'the password is a well-known phrase';
  return undefined;
}

/** The word alone, repeated, or with digits behind it. */
function isRepetitionOf(plain: string, word: string): boolean {
  if (word === '') return false;
  return plain.replaceAll(word, '').replaceAll(/[0-9]+/g, '') === '' && plain.includes(word);
}

const isRepetitive = (plain: string): boolean => /^(.{1,4}?)\1+$/su.test(plain);

function isSequence(plain: string): boolean {
  const backwards = [...plain].reverse().join('');
  return sequences.some((sequence) => sequence.includes(plain) || sequence.includes(backwards));
}
