/** Logins that wait for a core: whoever cannot be answered in time is told so while they still listen. */
import { availableParallelism } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import argon2 from 'argon2';
import t from 'tap';
import { createCast, login } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const MAXIMUM_ANSWER_MILLISECONDS = 5000;

t.test('no login begins to be hashed that would be answered too late', async (t) => {
  const server = await startServer(t, { isRateLimitOn: false });
  const { c1 } = await createCast(server);
  const { verify } = argon2;
  t.intercept(argon2, 'verify', {
    value: async (...parameters: Parameters<typeof verify>) => {
      await delay(900);
      return verify(...parameters);
    },
  });
  const timedLogin = async () => {
    const begin = performance.now();
    const { status } = await login(server, c1);
    return { status, milliseconds: performance.now() - begin };
  };
  const answers = await Promise.all(Array.from({ length: 8 * availableParallelism() }, timedLogin));
  t.strictSame([...new Set(answers.map(({ status }) => status))].sort(), [200, 503]);
  const slowest = Math.max(...answers.map(({ milliseconds }) => milliseconds));
  t.ok(slowest < MAXIMUM_ANSWER_MILLISECONDS, `${slowest} ms`);
});
