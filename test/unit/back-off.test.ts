/** How often a server in trouble is asked. What counts is the number of attempts, which no busy machine raises. */
import t, { type Test } from 'tap';
import { type BackOff, withBackOff } from '../../src/client/back-off.ts';
import { UnavailableError } from '../../src/client/errors.ts';

async function countAttempts(t: Test, backOff: BackOff): Promise<number> {
  let attempts = 0;
  const attempt = () => {
    attempts++;
    return Promise.reject(new UnavailableError({}));
  };
  await t.rejects(withBackOff(attempt, backOff), UnavailableError);
  return attempts;
}

t.test('pauses double, so that a server in trouble is asked ever less', async (t) => {
  const attempts = await countAttempts(t, {
    patienceMilliseconds: 1000,
    firstDelayMilliseconds: 10,
    maximumDelayMilliseconds: 10_000,
  });
  // Pauses of at least 5, 10, 20, … ms: the eighth would end after 1,275.
  t.ok(attempts <= 8, `${attempts}`);
});

t.test('pauses have a longest, so that a server that is back is soon found', async (t) => {
  const attempts = await countAttempts(t, {
    patienceMilliseconds: 3000,
    firstDelayMilliseconds: 1,
    maximumDelayMilliseconds: 4,
  });
  // Without a longest there would be twelve pauses, for their halves alone take 2,048 ms.
  t.ok(attempts > 13, `${attempts}`);
});
