/** Counts requests in windows of time, for limits. */
import { LRUCache } from 'lru-cache';

export interface RequestCount {
  /** Requests in this window so far, this one included. */
  readonly count: number;
  readonly millisecondsLeft: number;
}

export interface RequestCounter {
  /**
   * Counts one request under a key; its window begins with the first.
   *
   * @throws Error when nobody knows in time
   */
  increment(key: string, windowMilliseconds: number): Promise<RequestCount>;
}

/** Keys that are counted at a time; above it, whoever was silent for longest begins anew. */
const MAXIMUM_KEYS = 50_000;

/** Counts in this process alone. Never fails. */
export function createLocalCounter(): RequestCounter {
  const windows = new LRUCache<string, { count: number; endsAt: number }>({ max: MAXIMUM_KEYS });
  return {
    async increment(key, windowMilliseconds) {
      const now = performance.now();
      const known = windows.get(key);
      const window =
        known !== undefined && known.endsAt > now
          ? known
          : { count: 0, endsAt: now + windowMilliseconds };
      if (window !== known) windows.set(key, window);
      window.count++;
      return { count: window.count, millisecondsLeft: window.endsAt - now };
    },
  };
}

export interface FallbackOptions {
  /** Told what is wrong when counting becomes local. */
  readonly onLost: (error: unknown) => void;
  /** Told when counting is shared again. */
  readonly onShared: () => void;
  /** A shared counter that did not answer is left alone for this long, so that few requests wait for it. */
  readonly pauseMilliseconds: number;
}

/**
 * Counts together with others and, while that is not possible, alone: limits are never off, and never the
 * reason for a failure.
 */
export function withLocalFallback(
  shared: RequestCounter,
  { onLost, onShared, pauseMilliseconds }: FallbackOptions,
): RequestCounter {
  const local = createLocalCounter();
  let isShared = true;
  let pausedUntil = 0;
  return {
    async increment(key, windowMilliseconds) {
      const now = performance.now();
      if (now < pausedUntil) return local.increment(key, windowMilliseconds);
      // One asks whether it is back; nobody else waits for that.
      if (!isShared) pausedUntil = now + pauseMilliseconds;
      try {
        const count = await shared.increment(key, windowMilliseconds);
        pausedUntil = 0;
        if (!isShared) onShared();
        isShared = true;
        return count;
      } catch (error) {
        pausedUntil = performance.now() + pauseMilliseconds;
        if (isShared) onLost(error);
        isShared = false;
        return local.increment(key, windowMilliseconds);
      }
    },
  };
}
