/** A deadline for work that goes on when it is late. */
import { TemporarilyUnavailable } from './oauth/errors.ts';

/**
 * Waits for work, but no longer than so many seconds.
 *
 * @param onLateFailure told why work failed that nobody waited for any more
 * @throws TemporarilyUnavailable when the time is over
 */
export function inTime<Answer>(
  work: Promise<Answer>,
  seconds: number,
  onLateFailure: (reason: unknown) => void = () => {},
): Promise<Answer> {
  return new Promise((resolve, reject) => {
    let isLate = false;
    const giveUp = () => {
      isLate = true;
      reject(new TemporarilyUnavailable(`not done within ${seconds} s`));
    };
    const timer = setTimeout(giveUp, seconds * 1000);
    // No chain of promises, whose every link would cost each introspection.
    work.then(
      (answer) => {
        clearTimeout(timer);
        resolve(answer);
      },
      (reason) => {
        clearTimeout(timer);
        if (isLate) onLateFailure(reason);
        else reject(reason);
      },
    );
  });
}
