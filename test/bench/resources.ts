/** CPU time and memory of processes, from /proc; undefined where there is none (macOS). */
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';

/** USER_HZ, which is 100 on every Linux that Node runs on. */
const TICKS_PER_SECOND = 100;

interface ProcessTimes {
  readonly parentPid: number;
  readonly ownSeconds: number;
  /** Of children that have ended. */
  readonly childSeconds: number;
}

function readTimes(pid: number | string): ProcessTimes | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    // The name may hold spaces and parentheses; the fields behind it do not.
    const fields = stat.slice(stat.lastIndexOf(')') + 2).split(' ');
    const ticks = (position: number): number => Number(fields[position]) / TICKS_PER_SECOND;
    return {
      parentPid: Number(fields[1]),
      ownSeconds: ticks(11) + ticks(12),
      childSeconds: ticks(13) + ticks(14),
    };
  } catch {
    return undefined;
  }
}

export const parentOf = (pid: number): number | undefined => readTimes(pid)?.parentPid;

/** User and system time of one process so far, all its threads together. */
export const cpuSeconds = (pid: number): number | undefined => readTimes(pid)?.ownSeconds;

/** The same for a process and all its children, the ended ones too: PostgreSQL with its backends. */
export function treeCpuSeconds(pid: number): number | undefined {
  const root = readTimes(pid);
  if (root === undefined) return undefined;
  let seconds = root.ownSeconds + root.childSeconds;
  for (const name of readdirSync('/proc')) {
    const times = /^\d+$/.test(name) ? readTimes(name) : undefined;
    if (times?.parentPid === pid) seconds += times.ownSeconds;
  }
  return seconds;
}

/** The most memory that a process has held since its start or the last `resetPeakMemory`. */
export function peakMemoryMegabytes(pid: number): number | undefined {
  try {
    const status = readFileSync(`/proc/${pid}/status`, 'latin1');
    return Number(/^VmHWM:\s+(\d+) kB$/m.exec(status)?.[1]) / 1024;
  } catch {
    return undefined;
  }
}

export function resetPeakMemory(pid: number): void {
  try {
    writeFileSync(`/proc/${pid}/clear_refs`, '5');
  } catch {
    // Without the right to do so the peak is that of the whole run, which is higher and still true.
  }
}
