/** Passwords at rest: argon2id behind a bounded gate. Implements `PasswordHasher`. */
import argon2 from 'argon2';
import { TemporarilyUnavailable } from '../oauth/errors.ts';
import type { PasswordHasher } from '../oauth/ports.ts';
import { MAXIMUM_NORMALIZED_UNITS } from '../oauth/username.ts';
import type { HashGate } from './hash-gate.ts';

/** Cost of one hash, RFC 9106 §3.1. */
export interface Argon2Parameters {
  readonly memoryKibibytes: number;
  readonly iterations: number;
  readonly parallelism: number;
}

/** Builds a hasher for these parameters; every hash goes through the gate. */
export function createPasswordHasher(parameters: Argon2Parameters, gate: HashGate): PasswordHasher {
  const hash = (password: string): Promise<string> =>
    argon2
      .hash(normalizePassword(password), {
        type: argon2.argon2id,
        memoryCost: parameters.memoryKibibytes,
        timeCost: parameters.iterations,
        parallelism: parameters.parallelism,
      })
      .then(inStandardOrder, rethrowLackOfMemory);

  return {
    hash: (password) => gate(() => hash(password)),

    verify: (password, passwordHash, isAbandoned) =>
      gate(async () => {
        if (isAbandoned()) throw new TemporarilyUnavailable('nobody waits for the answer');
        if (password.length > MAXIMUM_NORMALIZED_UNITS) {
          await hash('');
          return 'mismatch';
        }
        const stored = passwordHash === undefined ? undefined : parametersOf(passwordHash);
        if (passwordHash === undefined || stored === undefined) {
          // The same work as for a person who exists, so that the time of an answer tells nothing. Of the same
          // text: normalising one that was made for it takes milliseconds.
          await hash(password);
          return passwordHash === undefined ? 'mismatch' : 'unreadable';
        }
        const isRight = await argon2
          .verify(passwordHash, normalizePassword(password))
          .catch(rethrowLackOfMemory)
          .catch((error) => {
            if (error instanceof TemporarilyUnavailable) throw error;
          });
        if (isRight === undefined) return 'unreadable';
        if (!isRight) return 'mismatch';
        return isWeaker(stored, parameters) ? 'match-needs-rehash' : 'match';
      }),
  };
}

/** A machine without memory for a hash says nothing about the password. */
function rethrowLackOfMemory(error: Error): never {
  if (!/memory allocation/i.test(error.message)) throw error;
  throw new TemporarilyUnavailable('no memory to hash a password', { cause: error });
}

/** NFC, so that one password typed on two keyboards is one password (NIST SP 800-63B-4 §3.1.1.2). */
export const normalizePassword = (password: string): string => password.normalize('NFC');

/**
 * The PHC string format has argon2's parameters as m, t, p. The binding sorts them by name, and the reference
 * implementation, with all that is built on it, cannot read that.
 */
const inStandardOrder = (passwordHash: string): string =>
  passwordHash.replace(/,(p=\d+),(t=\d+)\$/, ',$2,$1$');

/** The order of the parameters differs between implementations. */
const phc = /^\$argon2id\$v=19\$((?:[mtp]=\d+,?){3})\$[A-Za-z0-9+/]+\$[A-Za-z0-9+/]+$/;

function parametersOf(passwordHash: string): Argon2Parameters | undefined {
  const parameters = new URLSearchParams(phc.exec(passwordHash)?.[1]?.replaceAll(',', '&'));
  const memoryKibibytes = Number(parameters.get('m'));
  const iterations = Number(parameters.get('t'));
  const parallelism = Number(parameters.get('p'));
  if (!memoryKibibytes || !iterations || !parallelism) return undefined;
  return { memoryKibibytes, iterations, parallelism };
}

const isWeaker = (stored: Argon2Parameters, wanted: Argon2Parameters): boolean =>
  stored.memoryKibibytes < wanted.memoryKibibytes || stored.iterations < wanted.iterations;
