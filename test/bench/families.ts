/**
 * What the seeds and the load generator both know: everything about a family follows from its number,
 * so that a million of them can be written by SQL and asked about without being read back.
 *
 * The number also decides what a family is for, so that scenarios do not disturb each other.
 *
 * | number modulo 8 | family                                     |
 * |-----------------|--------------------------------------------|
 * | 0               | was revoked before the run                 |
 * | 1               | is revoked by the revocation scenario      |
 * | 2, 3            | is refreshed                               |
 * | 4 to 7          | is asked about and never changes           |
 */
import { createHash } from 'node:crypto';

export const webClient = { id: 'bench-web', secret: 'hcs_secret-of-the-benchmark-web-client' };
export const apiClient = { id: 'bench-api', secret: 'hcs_secret-of-the-benchmark-api-client' };
export const PASSWORD = 'a phrase for the benchmark only';
export const SCOPE = 'read write';
export const AUDIENCE = 'https://api.example';

export const sha256 = (text: string | Buffer): Buffer => createHash('sha256').update(text).digest();

const uuid = (name: string): string =>
  createHash('md5')
    .update(name)
    .digest('hex')
    .replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-');

export const familyId = (family: number): string => uuid(`family-${family}`);
export const lineageOf = (family: number): Buffer => sha256(`lineage-${family}`).subarray(0, 16);
export const refreshSecretOf = (family: number): Buffer => sha256(`refresh-${family}`);
export const accessSecretOf = (family: number): Buffer => sha256(`access-${family}`);

/** Ten families each, as of somebody with a few devices. */
export const personCount = (families: number): number => Math.ceil(families / 10);
export const username = (person: number): string => `person-${person}`;
export const subject = (person: number): string => uuid(username(person));
export const subjectOfFamily = (family: number, families: number): string =>
  subject(family % personCount(families));

/** The families of one purpose: how many there are, and the number of each. */
export interface FamilyClass {
  readonly count: number;
  readonly numberOf: (index: number) => number;
}

/** Families of the residues `first` to `first + width - 1` modulo 8. */
const residues = (families: number, first: number, width: number): FamilyClass => ({
  count: Math.floor(families / 8) * width,
  numberOf: (index) => Math.floor(index / width) * 8 + first + (index % width),
});

export const revokedFamilies = (families: number): FamilyClass => residues(families, 0, 1);
export const familiesToRevoke = (families: number): FamilyClass => residues(families, 1, 1);
export const familiesToRefresh = (families: number): FamilyClass => residues(families, 2, 2);
export const activeFamilies = (families: number): FamilyClass => residues(families, 4, 4);
/** Their tokens are well-formed and nobody has issued them. */
export const unknownFamilies = (families: number): FamilyClass => ({
  count: families,
  numberOf: (index) => families + index,
});

/** A prime that divides no usual number of families, so a walk visits all of a class before it repeats. */
const STRIDE = 48_271;

/** The family at a position of a walk that jumps about in a class. */
export const walk = ({ count, numberOf }: FamilyClass, position: number): number =>
  numberOf((position * STRIDE) % count);
