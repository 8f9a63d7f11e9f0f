/** How a process hears that it is to end, by signal or because the npm that started it is gone. */

/** The global `process`, which only entry points touch. */
type Process = NodeJS.Process;

export const STOP_SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const;

/** npm and `timeout` signal a process that has got the same with its group: that is no second Ctrl-C. */
const ECHO_MILLISECONDS = 500;

/**
 * Listens for SIGINT, SIGTERM and SIGHUP from now on.
 *
 * @param stop called on the first, and again on its echoes
 * @param endAtOnce called on every later one
 */
export function onStopSignal(self: Process, stop: () => void, endAtOnce: () => void): void {
  let firstSignalAt: number | undefined;
  const onSignal = (): void => {
    firstSignalAt ??= performance.now();
    if (performance.now() - firstSignalAt > ECHO_MILLISECONDS) endAtOnce();
    else stop();
  };
  for (const signal of STOP_SIGNALS) self.on(signal, onSignal);
}

/** npm can die of a signal without passing it on, and would leave this process behind. */
export function onNpmDeath(self: Process, stop: () => void): void {
  if (self.env['npm_lifecycle_event'] === undefined) return;
  const parent = self.ppid;
  setInterval(() => {
    if (self.ppid !== parent) stop();
  }, 1000).unref();
}
