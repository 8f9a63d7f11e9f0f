/** The processes of a run: servers that say when they listen, and helpers that answer messages. */
import { type ChildProcess, fork, spawn } from 'node:child_process';
import { join } from 'node:path';

export interface ServerProcess {
  readonly pid: number;
  readonly port: number;
  stop(): Promise<void>;
}

export interface HelperProcess {
  readonly pid: number;
  /** Sends a message and waits for the answer to it. */
  ask<Answer>(message: unknown): Promise<Answer>;
  stop(): Promise<void>;
}

/** Nothing of the developer's own environment decides what is measured. */
const environment = (settings: Readonly<Record<string, string>>) => ({
  PATH: process.env['PATH'],
  HOME: process.env['HOME'],
  // What Express and Koa ask for; Heirloom does not look at it.
  NODE_ENV: 'production',
  ...settings,
});

const START_TIMEOUT_MILLISECONDS = 30_000;

/** Starts a server on a free port and waits for its line `… listening on http://…`. */
export async function startServer(
  file: string,
  settings: Readonly<Record<string, string>>,
  nodeOptions: readonly string[] = [],
): Promise<ServerProcess> {
  const child = spawn(process.execPath, [...nodeOptions, join(import.meta.dirname, file)], {
    env: environment(settings),
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const url = await new Promise<string>((resolve, reject) => {
    let output = '';
    const timer = setTimeout(
      () => reject(new Error(`${file} did not start: ${output}`)),
      START_TIMEOUT_MILLISECONDS,
    );
    child.once('error', reject);
    child.once('close', (code) => reject(new Error(`${file} ended with ${code}: ${output}`)));
    child.stdout.setEncoding('utf8').on('data', (text: string) => {
      output += text;
      const found = /listening on (\S+)\n/.exec(output)?.[1];
      if (found === undefined) return;
      clearTimeout(timer);
      resolve(found);
    });
  }).catch(async (error) => {
    await stop(child);
    throw error;
  });
  return { pid: child.pid as number, port: Number(new URL(url).port), stop: () => stop(child) };
}

/** Starts a module that answers each message with one of its own. */
export function startHelper(file: string): HelperProcess {
  const child = fork(join(import.meta.dirname, file), { env: environment({}) });
  return {
    pid: child.pid as number,
    ask: <Answer>(message: unknown) =>
      new Promise<Answer>((resolve, reject) => {
        const ended = (code: number | null) => reject(new Error(`${file} ended with ${code}`));
        child.once('close', ended);
        child.once('message', (answer) => {
          child.off('close', ended);
          resolve(answer as Answer);
        });
        child.send(message as object);
      }),
    stop: () => stop(child),
  };
}

/** Asks a process to end, and makes it after a while. */
function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return Promise.resolve();
  return new Promise((resolve) => {
    const timer = setTimeout(() => child.kill('SIGKILL'), 5000);
    child.once('close', () => {
      clearTimeout(timer);
      resolve();
    });
    child.kill('SIGTERM');
  });
}
