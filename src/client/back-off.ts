/** Repeats what failed for want of an answer, in ever longer steps. */
import { UnavailableError } from './errors.ts';

export interface BackOff {
  /** After this time the trouble is handed to the caller, who may come again. */
  readonly patienceMilliseconds: number;
  readonly firstDelayMilliseconds: number;
  readonly maximumDelayMilliseconds: number;
}

/**
 * Calls `attempt` until it answers, or is refused, or patience ends.
 *
 * Delays double and are cut at random, so that many clients do not come back in step; a server's
 * `Retry-After` is the least there is to wait.
 */
export async function withBackOff<T>(attempt: () => Promise<T>, backOff: BackOff): Promise<T> {
  const givesUpAt = performance.now() + backOff.patienceMilliseconds;
  for (let delay = backOff.firstDelayMilliseconds; ; delay *= 2) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof UnavailableError)) throw error;
      const upTo = Math.min(delay, backOff.maximumDelayMilliseconds);
      const asked = (error.retryAfterSeconds ?? 0) * 1000;
      const wait = asked + upTo * (0.5 + Math.random() / 2);
      if (performance.now() + wait > givesUpAt) throw error;
      await new Promise((resolve) => setTimeout(resolve, wait));
    }
  }
}
