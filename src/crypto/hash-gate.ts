/** A bounded gate in front of work that takes a core and memory for tens of milliseconds. */
import { TemporarilyUnavailable } from '../oauth/errors.ts';

export interface HashGateOptions {
  /** How many hashes run at once. */
  readonly permits: number;
  /** How many may wait; more are refused at once, because an answer that comes too late helps nobody. */
  readonly queueLimit: number;
}

export type HashGate = <T>(work: () => Promise<T>) => Promise<T>;

/**
 * Builds a gate. A permit is given back when the work ends, not when somebody stops waiting for it:
 * the core and the memory are in use until then.
 */
export function createHashGate({ permits, queueLimit }: HashGateOptions): HashGate {
  const waiting: (() => void)[] = [];
  let running = 0;

  const enter = (): Promise<void> => {
    if (running < permits) {
      running++;
      return Promise.resolve();
    }
    if (waiting.length >= queueLimit) {
      throw new TemporarilyUnavailable('too many passwords are waiting to be hashed');
    }
    return new Promise((resolve) => waiting.push(resolve));
  };

  const leave = (): void => {
    const next = waiting.shift();
    // The permit goes from hand to hand, so that nobody who comes later can take it.
    if (next === undefined) running--;
    else next();
  };

  return async (work) => {
    await enter();
    try {
      return await work();
    } finally {
      leave();
    }
  };
}
