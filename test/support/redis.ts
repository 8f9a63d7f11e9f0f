/** A real Redis for one test, on a free port and without persistence. */
import { type ChildProcess, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import type { Test } from 'tap';
import { freePort } from './port.ts';

const executable = ['/usr/bin/redis-server', '/usr/local/bin/redis-server'].find(existsSync);

/** Options of a test that has nothing to run against where no Redis is installed. */
export const needsRedis = {
  skip: executable === undefined && 'no redis-server is installed: apt-get install redis-server',
};

export interface TestRedis {
  readonly url: string;
  stop(): Promise<void>;
  start(): Promise<void>;
  /** Neither answers nor closes its connections. */
  freeze(): void;
  thaw(): void;
}

/** Starts a server that ends with the test; its `url` names no password. */
export async function startRedis(t: Test, password = ''): Promise<TestRedis> {
  const port = await freePort();
  let child: ChildProcess | undefined;
  const start = async () => {
    const settings = { port, bind: '127.0.0.1', save: '', dir: '/tmp', requirepass: password };
    const words = Object.entries(settings).flatMap(([name, value]) => [`--${name}`, `${value}`]);
    child = spawn(executable as string, words, { stdio: 'ignore' });
    await answers(port);
  };
  const stop = async () => {
    const ending = child;
    child = undefined;
    if (ending === undefined) return;
    const ended = new Promise((resolve) => ending.once('exit', resolve));
    ending.kill('SIGCONT');
    ending.kill('SIGKILL');
    await ended;
  };
  t.teardown(stop);
  await start();
  return {
    url: `redis://127.0.0.1:${port}`,
    start,
    stop,
    freeze: () => void child?.kill('SIGSTOP'),
    thaw: () => void child?.kill('SIGCONT'),
  };
}

async function answers(port: number): Promise<void> {
  for (;;) {
    const isUp = await new Promise<boolean>((resolve) => {
      const socket = connect(port, '127.0.0.1', () => {
        socket.destroy();
        resolve(true);
      });
      socket.on('error', () => resolve(false));
    });
    if (isUp) return;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
}
