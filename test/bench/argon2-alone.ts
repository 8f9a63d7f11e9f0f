/**
 * What argon2 does when nothing else is to be done: verifies a password on as many threads as there are
 * cores, with the product's parameters. Takes the seconds of a measurement from its parent, answers
 * verifications per second.
 */
import { availableParallelism } from 'node:os';
import { loadConfig } from '../../src/config.ts';
import { createPasswordHasher } from '../../src/crypto/password-hasher.ts';
import { PASSWORD } from './families.ts';

const { argon2 } = loadConfig({});
const passwords = createPasswordHasher(argon2, (work) => work());
const passwordHash = await passwords.hash(PASSWORD);

process.on('message', async (seconds: number) => {
  const startedAt = performance.now();
  const until = startedAt + seconds * 1000;
  let verified = 0;
  const verifyInTurn = async (): Promise<void> => {
    while (performance.now() < until) {
      const verdict = await passwords.verify(PASSWORD, passwordHash, () => false);
      if (verdict !== 'match') throw new Error(`argon2 says ${verdict}`);
      verified++;
    }
  };
  await Promise.all(Array.from({ length: availableParallelism() }, verifyInTurn));
  process.send?.((verified * 1000) / (performance.now() - startedAt));
});
process.on('disconnect', () => process.exit(0));
