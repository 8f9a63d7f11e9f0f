/** Signals: one request to stop is heard once, at any time, and PostgreSQL is never left behind. */
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import {
  isPostgresRunning,
  LAUNCHER,
  type ProcessGroup,
  sendHalfARequest,
  startGroup,
  temporaryDirectory,
  until,
} from '../support/process.ts';

const DIRECTLY = [process.execPath, LAUNCHER, 'serve'] as const;

const url = async (server: ProcessGroup): Promise<string> =>
  (await server.waitForOutput(/listening on (\S+)\n/))[1] as string;

const isAnswering = (address: string) =>
  fetch(address).then(
    () => true,
    () => false,
  );

t.test('a signal that comes twice at once is one request to stop', async (t) => {
  const DATA_DIR = temporaryDirectory(t);
  const cases = [
    [DIRECTLY, {}, ['SIGINT', 'SIGINT']],
    [DIRECTLY, {}, ['SIGTERM', 'SIGHUP']],
    [DIRECTLY, { WORKERS: '2' }, ['SIGINT', 'SIGINT']],
  ] as const;
  for (const [command, env, signals] of cases) {
    const name = `${command.slice(1).join(' ')} ${JSON.stringify(env)}: ${signals}`;
    const server = startGroup(t, command, { DATA_DIR, ...env });
    const address = await url(server);
    for (const signal of signals) {
      server.signalGroup(signal);
      await delay(20);
    }
    t.equal(await server.exit, 0, name);
    t.notOk(isPostgresRunning(DATA_DIR), name);
    t.notOk(await isAnswering(address), name);
  }
});

t.test('a second Ctrl-C does not wait for requests in flight', async (t) => {
  const server = startGroup(t, DIRECTLY, { DATA_DIR: temporaryDirectory(t) });
  sendHalfARequest(t, await url(server));
  await delay(300);
  server.signalGroup('SIGINT');
  t.equal(await Promise.race([server.exit, delay(2000, 'waiting')]), 'waiting');
  server.signalGroup('SIGINT');
  t.equal(await Promise.race([server.exit, delay(2000, 'waiting')]), 1);
});

t.test('a signal during the start ends it in order', async (t) => {
  const DATA_DIR = temporaryDirectory(t);
  const cases = [
    [DIRECTLY, {}, ['SIGTERM']],
    [DIRECTLY, {}, ['SIGINT', 'SIGINT']],
    [DIRECTLY, {}, ['SIGHUP']],
    [DIRECTLY, { WORKERS: '2' }, ['SIGINT']],
    // Nobody sends requests yet, so nobody is waited for.
    [DIRECTLY, { SHUTDOWN_DELAY: '300' }, ['SIGTERM']],
  ] as const;
  for (const [command, env, signals] of cases) {
    const name = `${command.slice(1).join(' ')} ${JSON.stringify(env)}: ${signals}`;
    const server = startGroup(t, command, { DATA_DIR, ...env });
    await until(() => isPostgresRunning(DATA_DIR));
    for (const signal of signals) server.signalGroup(signal);
    t.equal(await server.exit, 0, name);
    t.notOk(isPostgresRunning(DATA_DIR), name);
    t.notMatch(server.output(), /listening on|"level"/, name);
  }
});

t.test('workers that are starting end with the primary', async (t) => {
  const DATA_DIR = temporaryDirectory(t);
  // From the first to the last moment of their start, on most machines.
  for (const [whom, milliseconds] of [
    ['group', 400],
    ['group', 800],
    ['primary', 800],
    ['group', 1200],
  ] as const) {
    const server = startGroup(t, DIRECTLY, { DATA_DIR, WORKERS: '2' });
    await until(() => isPostgresRunning(DATA_DIR));
    await delay(milliseconds);
    process.kill(whom === 'group' ? -server.pid : server.pid, 'SIGTERM');
    const name = `${whom} after ${milliseconds} ms`;
    t.equal(await server.exit, 0, name);
    t.notOk(isPostgresRunning(DATA_DIR), name);
    t.notMatch(server.output(), 'worker_died', name);
  }
});

t.test('a server whose parent is killed ends under npm, during its start, too', async (t) => {
  const DATA_DIR = temporaryDirectory(t);
  const byShell = ['sh', '-c', `"${process.execPath}" src/heirloom.js serve & wait`] as const;
  const group = startGroup(t, byShell, { DATA_DIR, npm_lifecycle_event: 'start' });
  await until(() => isPostgresRunning(DATA_DIR));
  process.kill(group.pid, 'SIGKILL');
  await until(() => !isPostgresRunning(DATA_DIR));
  t.pass('gone');
});

t.test('a server that was left running goes on when its parent is gone', async (t) => {
  const DATA_DIR = temporaryDirectory(t);
  const byShell = ['sh', '-c', `"${process.execPath}" src/heirloom.js serve & wait`] as const;
  const group = startGroup(t, byShell, { DATA_DIR });
  const address = await url(group);
  process.kill(group.pid, 'SIGKILL');
  await group.exit;
  // It would look for its parent once a second.
  await delay(1500);
  t.ok(await isAnswering(address));
  group.signalGroup('SIGTERM');
  await until(() => !isPostgresRunning(DATA_DIR));
});
