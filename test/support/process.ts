/** The server and the command line as processes of their own, as a person starts them. */
import { type ChildProcess, spawn } from 'node:child_process';
import { chmodSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import type { Test } from 'tap';

export const CHECKOUT = join(import.meta.dirname, '../..');
export const LAUNCHER = join(CHECKOUT, 'src/heirloom.js');

export interface Finished {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

export interface RunOptions {
  readonly env?: Readonly<Record<string, string>>;
  readonly cwd?: string;
  readonly input?: string;
  readonly node?: string;
}

/** Nothing of the developer's own environment decides what a test sees. */
const environment = (env: RunOptions['env'] = {}) => ({
  PATH: process.env['PATH'],
  HOME: process.env['HOME'],
  ...env,
});

/** Runs a program to its end. */
export function run(
  command: string,
  words: readonly string[],
  { env, cwd = CHECKOUT, input = '' }: RunOptions = {},
): Promise<Finished> {
  return new Promise((resolve, reject) => {
    const child = spawn(command, words, { cwd, env: environment(env) });
    const output = collect(child);
    child.once('error', reject);
    child.once('close', (code) => resolve({ code, ...output }));
    // A program that fails at once has closed its input already.
    child.stdin.on('error', () => {});
    child.stdin.end(input);
  });
}

/** Runs `heirloom …` to its end. */
export const heirloom = (words: readonly string[], options: RunOptions = {}): Promise<Finished> =>
  run(options.node ?? process.execPath, [LAUNCHER, ...words], options);

export interface ServerProcess {
  readonly url: string;
  readonly output: { readonly stdout: string; readonly stderr: string };
  /** Sends SIGTERM to the process, or to its whole group, and waits for the end. */
  stop(whom?: 'group'): Promise<number | null>;
}

/** Starts a server on a free port and waits for its ready line; stops it when the test ends. */
export async function serve(
  t: Test,
  { env, cwd = CHECKOUT }: RunOptions = {},
  [command, ...words]: readonly [string, ...string[]] = [process.execPath, LAUNCHER, 'serve'],
): Promise<ServerProcess> {
  const child = spawn(command, words, {
    cwd,
    env: environment({ PORT: '0', ...env }),
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  const output = collect(child);
  const ended = new Promise<number | null>((resolve) => child.once('close', resolve));
  let isStopped = false;
  const stop = async (whom?: 'group') => {
    if (!isStopped && whom === 'group') process.kill(-(child.pid as number), 'SIGTERM');
    else if (!isStopped) child.kill('SIGTERM');
    isStopped = true;
    return ended;
  };
  t.teardown(() => stop());
  const url = await Promise.race([
    readyUrl(child, output),
    ended.then((code) => {
      throw new Error(`ended with ${code} before it was ready: ${output.stdout}${output.stderr}`);
    }),
  ]);
  return { url, output, stop };
}

export interface ProcessGroup {
  readonly pid: number;
  readonly output: () => string;
  /** Waits until the output has a match. @throws Error when the process has ended by then */
  waitForOutput(pattern: RegExp): Promise<RegExpExecArray>;
  /** The exit code of the process itself, whoever else still has its standard error open. */
  readonly exit: Promise<number | null>;
  /** Signals the process group, as a terminal and most supervisors do. */
  signalGroup(signal: NodeJS.Signals): void;
  /** Closes its standard output, as a terminal does that is gone. */
  hangUp(): void;
}

/** Starts a process in a group of its own; what is left of it when the test ends is killed. */
export function startGroup(
  t: Test,
  [command, ...words]: readonly [string, ...string[]],
  env: Readonly<Record<string, string>> & { readonly DATA_DIR: string },
): ProcessGroup {
  const dataDir = env.DATA_DIR;
  const child = spawn(command, words, {
    cwd: CHECKOUT,
    env: environment({ PORT: '0', ...env }),
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  });
  const pid = child.pid as number;
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    output += chunk;
  });
  const exit = new Promise<number | null>((resolve) => child.once('exit', resolve));
  const hasEnded = () => child.exitCode !== null || child.signalCode !== null;
  t.teardown(async () => {
    if (!hasEnded()) process.kill(-pid, 'SIGKILL');
    await exit;
    if (isPostgresRunning(dataDir)) process.kill(postmasterPid(dataDir), 'SIGINT');
    await until(() => !isPostgresRunning(dataDir));
  });
  return {
    pid,
    output: () => output,
    async waitForOutput(pattern) {
      await until(() => hasEnded() || pattern.test(output));
      const found = pattern.exec(output);
      if (hasEnded() || found === null) throw new Error(`ended, ${pattern} or not: ${output}`);
      return found;
    },
    exit,
    signalGroup: (signal) => process.kill(-pid, signal),
    hangUp: () => child.stdout.destroy(),
  };
}

const pidFile = (dataDir: string) => join(dataDir, 'postgresql-18/cluster/postmaster.pid');
const postmasterPid = (dataDir: string) =>
  Number(readFileSync(pidFile(dataDir), 'utf8').split('\n', 1)[0]);
/** The embedded server removes the file when it ends. */
export const isPostgresRunning = (dataDir: string): boolean => existsSync(pidFile(dataDir));

export async function until(look: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await look())) await delay(50);
}

/** A directory for a DATA_DIR, which the embedded server's own user can reach too. */
export function temporaryDirectory(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'heirloom-'));
  chmodSync(directory, 0o755);
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  return directory;
}

function collect(child: ChildProcess): { stdout: string; stderr: string } {
  const output = { stdout: '', stderr: '' };
  for (const name of ['stdout', 'stderr'] as const) {
    child[name]?.setEncoding('utf8').on('data', (chunk: string) => {
      output[name] += chunk;
    });
  }
  return output;
}

const readyUrl = (child: ChildProcess, output: { stdout: string }): Promise<string> =>
  new Promise((resolve) => {
    const look = () => {
      const url = /listening on (\S+)\n/.exec(output.stdout)?.[1];
      if (url !== undefined) resolve(url);
    };
    child.stdout?.on('data', look);
    look();
  });

/** Sends a request whose body does not come, which keeps a server from ending at once. */
export function sendHalfARequest(t: Test, url: string): Socket {
  const { port, hostname } = new URL(url);
  const socket = connect(Number(port), hostname);
  socket.on('error', () => {});
  t.teardown(() => socket.destroy());
  socket.write(
    'POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n' +
      'Content-Length: 100\r\n\r\n',
  );
  return socket;
}
