/** The processes of the example: one starts the others, asks each once to end, and ends last. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createInterface } from 'node:readline';
import type { Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import { onNpmDeath, onStopSignal } from '../../stop-requests.ts';

export interface Processes {
  /** Aborted as soon as all are to end; nothing can be started any more. */
  readonly stopping: AbortSignal;
  /** Starts a server and resolves with its URL, when it says where it listens. */
  start(words: readonly string[], environment: NodeJS.ProcessEnv): Promise<string>;
  /** Runs a command to its end and resolves with what it has written. */
  run(words: readonly string[], environment: NodeJS.ProcessEnv): Promise<string>;
  /** Ends the servers, and then this process with the first of all codes that is not 0. */
  stop(code: number): void;
}

/**
 * Starts processes of Node, and ends them on SIGINT, SIGTERM and SIGHUP and when one of the servers ends.
 * A second signal ends them at once.
 */
export function superviseProcesses(cwd: string): Processes {
  const running = new Set<ChildProcess>();
  const listening = new Set<ChildProcess>();
  const stopping = new AbortController();

  const stop = (code: number): void => {
    process.exitCode ||= code;
    if (stopping.signal.aborted) return;
    stopping.abort();
    for (const server of listening) server.kill('SIGTERM');
  };

  const stopInOrder = (): void => stop(0);
  onStopSignal(process, stopInOrder, () => {
    for (const child of running) child.kill('SIGTERM');
  });
  // A terminal that is gone takes no lines; the servers are to be ended nevertheless.
  for (const stream of [process.stdout, process.stderr]) stream.on('error', () => {});
  onNpmDeath(process, stopInOrder);

  const launch = (words: readonly string[], environment: NodeJS.ProcessEnv) => {
    stopping.signal.throwIfAborted();
    const child = spawn(process.execPath, words, {
      cwd,
      // The authorization server ends when its parent dies, as under npm; an API when the channel does.
      env: { ...environment, npm_lifecycle_event: 'example' },
      stdio: ['ignore', 'pipe', 'inherit', 'ipc'],
      // In a group of its own it gets those signals only that are passed on.
      detached: true,
    });
    running.add(child);
    child.once('exit', () => {
      running.delete(child);
      listening.delete(child);
    });
    return { child, stdout: child.stdout as Readable };
  };

  return {
    stopping: stopping.signal,
    start: async (words, environment) => {
      const { child, stdout } = launch(words, environment);
      return new Promise((resolve, reject) => {
        child.once('exit', (code) => {
          stop(code ?? 1);
          reject(new Error(`${words.join(' ')} has ended`));
        });
        createInterface({ input: stdout }).on('line', (line) => {
          process.stdout.write(`${line}\n`);
          const url = / listening on (\S+)$/.exec(line)?.[1];
          if (url === undefined) return;
          listening.add(child);
          // Sooner it may have no handler, and would end by the signal and not with 0.
          if (stopping.signal.aborted) child.kill('SIGTERM');
          resolve(url);
        });
      });
    },
    run: async (words, environment) => {
      const { child, stdout } = launch(words, environment);
      const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
      const [output, code] = await Promise.all([text(stdout), ended]);
      if (code !== 0) throw new Error(`${words.join(' ')} has ended with ${code}`);
      return output;
    },
    stop,
  };
}
