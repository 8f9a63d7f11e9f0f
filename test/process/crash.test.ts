/** Deaths that nobody asked for: of a worker, which is replaced, and of a server, which says why and waits for nobody. */
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { createTestDatabase } from '../support/database.ts';
import { matchEach } from '../support/match.ts';
import { LAUNCHER, startGroup, temporaryDirectory, until } from '../support/process.ts';

/** Workers say who they are, and SIGUSR2 is a bug that nobody catches. */
const preload =
  "import cluster from 'node:cluster'; " +
  "if (cluster.isWorker) process.stdout.write('worker ' + process.pid + '\\n'); " +
  "process.on('SIGUSR2', () => { throw new Error('made up') })";

async function start(t: Test, env: Readonly<Record<string, string>>) {
  const { url: DATABASE_URL } = await createTestDatabase(t);
  const server = startGroup(t, [process.execPath, LAUNCHER, 'serve'], {
    DATA_DIR: temporaryDirectory(t),
    DATABASE_URL,
    NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(preload)}`,
    ...env,
  });
  const [, url] = await server.waitForOutput(/listening on (\S+)\n/);
  /** The log so far, of one event. */
  const events = (name: string) =>
    server
      .output()
      .split('\n')
      .slice(0, -1)
      .filter((line) => line.includes(`"event":"${name}"`))
      .map((line) => JSON.parse(line));
  const count = (pattern: RegExp) => server.output().match(pattern)?.length ?? 0;
  const status = async () => (await fetch(`${url}/readyz`)).status;
  return { server, events, count, status };
}

t.test('a worker that dies is replaced, and the others answer meanwhile', async (t) => {
  const { server, events, count, status } = await start(t, { WORKERS: '2' });
  const pids = [...server.output().matchAll(/^worker (\d+)$/gm)].map(([, pid]) => Number(pid));
  t.equal(pids.length, 2);
  for (const [index, pid] of pids.entries()) {
    process.kill(pid, 'SIGKILL');
    await until(() => events('worker_died').length === index + 1);
    t.match(events('worker_died')[index], { level: 50, processId: pid });
    // When the second one is gone, it is a replacement that answers.
    await until(async () => (await status().catch(() => 0)) === 200);
    await until(() => count(/bound to/g) === 3 + index);
  }
  t.equal(count(/^worker /gm), 4, 'one for each');
  server.signalGroup('SIGTERM');
  t.equal(await server.exit, 0);
  t.equal(events('worker_died').length, 2, 'whoever is told to end has not died');
});

t.test(
  'a server that crashes says why, and ends without the delay of an orderly end',
  async (t) => {
    const { server, events } = await start(t, { SHUTDOWN_DELAY: '300' });
    process.kill(server.pid, 'SIGUSR2');
    t.equal(await Promise.race([server.exit, delay(60_000, 'waiting', { ref: false })]), 1);
    matchEach(t, events('crashed'), [{ level: 50, error: { name: 'Error', stack: /made up/ } }]);
  },
);
