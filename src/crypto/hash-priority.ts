/** Lets everything else go first when passwords are hashed. */
import { readdir, readFile } from 'node:fs/promises';
import { setPriority } from 'node:os';

/** Behind the event loop and the database, ahead of what is meant for idle machines. */
const NICENESS = 10;
const TASKS = '/proc/self/task';

/**
 * Lowers the priority of the threads that hash, on Linux, where threads have one of their own.
 *
 * A hash takes a core for tens of milliseconds. While cores are idle it is as fast as ever; when they
 * are not, logins wait and refreshes, introspections and PostgreSQL do not. Elsewhere, and where a
 * sandbox forbids it, nothing happens.
 */
export async function yieldToOthersWhileHashing(): Promise<void> {
  // Reading also starts the threads, which Node does all at once and not before they are needed.
  const tasks = await readdir(TASKS).catch(() => []);
  for (const task of tasks) {
    const name = await readFile(`${TASKS}/${task}/comm`, 'utf8').catch(() => '');
    if (!name.startsWith('libuv-worker')) continue;
    try {
      setPriority(Number(task), NICENESS);
    } catch {
      return;
    }
  }
}
