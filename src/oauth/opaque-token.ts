/**
 * The text of a token: prefix + base64url(bytes), where the bytes end in a CRC-32.
 *
 * | token   | bytes                                                     |
 * |---------|-----------------------------------------------------------|
 * | refresh | family id 16 · lineage 16 · secret 32 · checksum 4        |
 * | access  | family id 16 · secret 32 · checksum 4                     |
 *
 * The family id finds the row and proves nothing. The lineage is shared by all refresh tokens of a
 * family, so a spent one is recognised after any number of generations. The secret is new each time.
 */
import { hash, randomBytes, timingSafeEqual } from 'node:crypto';
import { crc32 } from 'node:zlib';

const FAMILY_ID_BYTES = 16;
const LINEAGE_BYTES = 16;
const SECRET_BYTES = 32;
const CHECKSUM_BYTES = 4;

const RANDOM_BYTES_AT_ONCE = 4096;

/** The counter and the fixed information that stand before and after the secret in a derivation. */
const FIRST_BLOCK = Buffer.from([0, 0, 0, 1]);
const SUCCESSOR_LABEL = Buffer.from('heirloom successor');

/** Longer texts are not even decoded; the longest token has 95 characters. */
const MAXIMUM_TOKEN_CHARACTERS = 512;

const layouts = {
  access_token: { prefix: 'hat_', bytes: FAMILY_ID_BYTES + SECRET_BYTES },
  refresh_token: { prefix: 'hrt_', bytes: FAMILY_ID_BYTES + LINEAGE_BYTES + SECRET_BYTES },
} as const;

/** A well-formed access token as somebody presented it; nothing about it is verified yet. */
export interface PresentedAccessToken {
  readonly kind: 'access_token';
  readonly familyId: string;
  readonly secretDigest: Buffer;
}

/** A well-formed refresh token as somebody presented it; nothing about it is verified yet. */
export interface PresentedRefreshToken {
  readonly kind: 'refresh_token';
  readonly familyId: string;
  readonly lineage: Buffer;
  readonly lineageDigest: Buffer;
  /** In clear, because the successor is derived from it; never stored and never logged. */
  readonly secret: Buffer;
  readonly secretDigest: Buffer;
}

/** What `parseOpaqueToken` has read; the prefix tells which of the two. */
export type PresentedToken = PresentedAccessToken | PresentedRefreshToken;

/** SHA-256, the only form in which a token's secret parts or a client secret are stored. */
export const digest = (secret: Buffer | string): Buffer =>
  // By way of text: Node allocates a buffer of its own outside its pool for each digest.
  Buffer.from(hash('sha256', secret, 'latin1'), 'latin1');

/** Compares two digests in constant time. */
export const isSameDigest = (one: Buffer, other: Buffer): boolean =>
  one.length === other.length && timingSafeEqual(one, other);

let drawn = Buffer.alloc(0);

/** Bytes that nobody had before. The generator is asked for many at once: its price is that of the call. */
function takeRandom(bytes: number): Buffer {
  if (drawn.length < bytes) drawn = randomBytes(RANDOM_BYTES_AT_ONCE);
  const taken = drawn.subarray(0, bytes);
  drawn = drawn.subarray(bytes);
  return taken;
}

/** Generates 128 random bits, written as a UUID because the column is one. */
export const generateFamilyId = (): string => uuidFromBytes(takeRandom(FAMILY_ID_BYTES));

/** Generates the secret that all refresh tokens of one family share. */
export const generateLineage = (): Buffer => takeRandom(LINEAGE_BYTES);

/** Generates 256 random bits: a secret, or the salt that derives one. */
export const generateSecret = (): Buffer => takeRandom(SECRET_BYTES);

/** Generates a client secret of 256 bits whose alphabet survives any client's encoding mistakes. */
export const generateClientSecret = (): string => `hcs_${generateSecret().toString('base64url')}`;

/** The secrets of the pair that follows a refresh token. */
export interface SuccessorSecrets {
  readonly refreshSecret: Buffer;
  readonly accessSecret: Buffer;
}

/**
 * Derives what follows the presented refresh token.
 *
 * The same presented secret and salt give the same successor, so a retry after a lost response
 * returns it again, while the salt alone, which is all the database has, derives nothing. Both are
 * halves of one block of a one-step key derivation: whoever holds the access token learns nothing
 * about the refresh token.
 *
 * @see NIST SP 800-56C Rev. 2 §4.1, option 1
 */
export function deriveSuccessor(successorSalt: Buffer, presentedSecret: Buffer): SuccessorSecrets {
  const input = Buffer.concat([FIRST_BLOCK, presentedSecret, SUCCESSOR_LABEL, successorSalt]);
  const secrets = Buffer.from(hash('sha512', input, 'latin1'), 'latin1');
  return {
    refreshSecret: secrets.subarray(0, SECRET_BYTES),
    accessSecret: secrets.subarray(SECRET_BYTES),
  };
}

/** Writes an access token in clear; only the digest of `secret` may be stored. */
export const formatAccessToken = (familyId: string, secret: Buffer): string =>
  format('access_token', [bytesFromUuid(familyId), secret]);

/** Writes a refresh token in clear; only the digests of `lineage` and `secret` may be stored. */
export const formatRefreshToken = (familyId: string, lineage: Buffer, secret: Buffer): string =>
  format('refresh_token', [bytesFromUuid(familyId), lineage, secret]);

/**
 * Reads a token's text; `undefined` for everything this server cannot have issued.
 *
 * Only the canonical text is accepted: exact length and alphabet, unused bits zero, checksum right.
 * Garbage, truncation and typing errors are therefore refused before any look-up.
 */
export function parseOpaqueToken(text: string): PresentedToken | undefined {
  if (text.length > MAXIMUM_TOKEN_CHARACTERS) return undefined;
  const access = decode('access_token', text);
  if (access !== undefined) {
    return {
      kind: 'access_token',
      familyId: uuidFromBytes(access.subarray(0, FAMILY_ID_BYTES)),
      secretDigest: digest(access.subarray(FAMILY_ID_BYTES)),
    };
  }
  const refresh = decode('refresh_token', text);
  if (refresh === undefined) return undefined;
  const lineage = refresh.subarray(FAMILY_ID_BYTES, FAMILY_ID_BYTES + LINEAGE_BYTES);
  const secret = refresh.subarray(FAMILY_ID_BYTES + LINEAGE_BYTES);
  return {
    kind: 'refresh_token',
    familyId: uuidFromBytes(refresh.subarray(0, FAMILY_ID_BYTES)),
    lineage,
    lineageDigest: digest(lineage),
    secret,
    secretDigest: digest(secret),
  };
}

function format(kind: keyof typeof layouts, parts: readonly Buffer[]): string {
  const { prefix, bytes: length } = layouts[kind];
  const bytes = Buffer.concat(parts, length + CHECKSUM_BYTES);
  bytes.writeUInt32BE(checksum(prefix, bytes.subarray(0, length)), length);
  return prefix + bytes.toString('base64url');
}

function decode(kind: keyof typeof layouts, text: string): Buffer | undefined {
  const { prefix, bytes: length } = layouts[kind];
  if (!text.startsWith(prefix)) return undefined;
  const encoded = text.slice(prefix.length);
  const decoded = Buffer.from(encoded, 'base64url');
  if (decoded.length !== length + CHECKSUM_BYTES) return undefined;
  // Node's decoder skips foreign characters and ignores unused bits; encoding again shows both.
  if (decoded.toString('base64url') !== encoded) return undefined;
  const bytes = decoded.subarray(0, length);
  return decoded.readUInt32BE(length) === checksum(prefix, bytes) ? bytes : undefined;
}

const checksum = (prefix: string, bytes: Buffer): number => crc32(bytes, crc32(prefix));

function uuidFromBytes(bytes: Buffer): string {
  const hex = bytes.toString('hex');
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

const bytesFromUuid = (uuid: string): Buffer => Buffer.from(uuid.replaceAll('-', ''), 'hex');
