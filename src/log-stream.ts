/** Standard output as a log, which neither a full disk nor a reader that sleeps may hold up. */
import pino from 'pino';

/** Lines that wait for so long without one being written wait for a disk that is full or a reader that sleeps. */
const STUCK_AFTER_MILLISECONDS = 250;

export interface LogStream {
  write(line: string): void;
  /** Gives the last lines half a second to be written. */
  drain(): Promise<void>;
}

/**
 * Log lines, written beside the requests. A full disk or a reader that sleeps costs lines, which is
 * better than requests: nothing waits for a line, and no more than this is kept for later.
 *
 * @param process whose standard output it is, and whose exit ends it
 */
export function openLogStream(process: NodeJS.Process): LogStream {
  const stream = pino.destination({ fd: 1, sync: false, maxLength: 1024 * 1024 });
  /** Since when lines wait and none was written; undefined while none waits. */
  let stuckSince: number | undefined;
  stream.on('error', () => {
    stuckSince = Number.NEGATIVE_INFINITY;
  });
  stream.on('write', () => {
    stuckSince = performance.now();
  });
  stream.on('drain', () => {
    stuckSince = undefined;
  });
  // The logger writes what is left when the process exits, and tries until it can: a full disk would be for ever.
  process.prependListener('exit', () => {
    const isStuck =
      stuckSince !== undefined && performance.now() - stuckSince > STUCK_AFTER_MILLISECONDS;
    if (isStuck) stream.destroy();
  });
  // Without `flushSync`, which would wait for ever for a disk that stays full.
  return {
    write(line) {
      stuckSince ??= performance.now();
      stream.write(line);
    },

    drain: () =>
      new Promise((resolve) => {
        stream.flush(() => resolve());
        setTimeout(resolve, 500).unref();
      }),
  };
}
