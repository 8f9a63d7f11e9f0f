/** Ending: whoever is in flight is answered, nobody is waited for without need, and the exit code is 0. */
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { connect } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { demo } from '../../src/demo.ts';
import { post } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import { freePort } from '../support/port.ts';
import { LAUNCHER, serve, startGroup, temporaryDirectory, until } from '../support/process.ts';
import { startServer } from '../support/server.ts';

const body = new URLSearchParams({
  grant_type: 'password',
  client_id: demo.clientId,
  username: demo.username,
  password: demo.password,
}).toString();
const head =
  'POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n' +
  `Content-Length: ${body.length}\r\n\r\n`;

/** Keeps a connection open and collects what comes back. */
function dial(url: string) {
  const { port, hostname } = new URL(url);
  const socket = connect(Number(port), hostname);
  let received = '';
  socket.setEncoding('utf8').on('data', (chunk: string) => {
    received += chunk;
  });
  const closed = new Promise<void>((resolve) => socket.once('close', () => resolve()));
  socket.on('error', () => {});
  return { socket, closed, received: () => received };
}

t.test(
  'DOS-12 ASVS 16.5.2: a request in flight is answered and its connection closed, and the exit code is 0',
  async (t) => {
    const env = { DATA_DIR: temporaryDirectory(t) };
    const server = await serve(t, { env });
    const idle = dial(server.url);
    const busy = dial(server.url);
    // The head and half of the body: the request is under way when the signal comes.
    busy.socket.write(head + body.slice(0, 20));
    await new Promise((resolve) => setTimeout(resolve, 300));
    const code = server.stop();
    await new Promise((resolve) => setTimeout(resolve, 300));
    busy.socket.write(body.slice(20));
    t.equal(await code, 0);
    await Promise.all([busy.closed, idle.closed]);
    t.match(busy.received(), /^HTTP\/1\.1 200 /);
    t.match(busy.received().toLowerCase(), '\r\nconnection: close\r\n');
  },
);

t.test('with SHUTDOWN_DELAY everything is answered while /readyz tells of the end', async (t) => {
  const { url: DATABASE_URL } = await createTestDatabase(t);
  for (const WORKERS of ['1', '2']) {
    const env = { DATABASE_URL, WORKERS, SHUTDOWN_DELAY: '4' };
    const server = await serve(t, { env });
    const kept = dial(server.url);
    await once(kept.socket, 'connect');
    const toldAt = performance.now();
    const code = server.stop();
    const readiness = async () => (await fetch(`${server.url}/readyz`)).status;
    await until(async () => (await readiness()) === 503);
    await delay(200);
    for (let n = 0; n < 8; n++) t.equal(await readiness(), 503, 'on every worker');
    kept.socket.write(head + body);
    const [answer] = await Promise.all([
      post(`${server.url}/token`, { grant_type: 'x' }),
      kept.closed,
    ]);
    for (const [status, connection] of [
      [answer.status, answer.headers.get('connection')],
      [Number(kept.received().slice(9, 12)), /^connection: (.*)\r$/im.exec(kept.received())?.[1]],
    ]) {
      // Nobody of that name exists here: what counts is that the server has looked.
      t.strictSame([status, connection], [401, 'close']);
    }
    t.equal(await code, 0);
    t.ok(performance.now() - toldAt >= 4000, 'waits as long as it was told to');
  }
});

t.test(
  'a crash on the way to the end says what it is and nothing of what it carries',
  async (t) => {
    const { url: DATABASE_URL } = await createTestDatabase(t);
    // As a statement's failure does that nobody has caught.
    const failure = "Object.assign(new Error('the crash'), { values: [process.env.CARRIED] })";
    const bug = `process.on('SIGTERM', () => setTimeout(() => { throw ${failure}; }, 200))`;
    const words = [
      '--import',
      `data:text/javascript,${encodeURIComponent(bug)}`,
      LAUNCHER,
      'serve',
    ];
    const env = { DATABASE_URL, SHUTDOWN_DELAY: '30', CARRIED: 'swordfish' };
    const server = await serve(t, { env }, [process.execPath, ...words]);
    t.equal(await server.stop(), 1);
    const lines = server.output.stdout.split('\n').filter((line) => line.startsWith('{'));
    const crash = { event: 'crashed', error: { name: 'Error', stack: /the crash/ } };
    t.match(JSON.parse(lines.at(-1) ?? '{}'), crash);
    t.notMatch(server.output.stdout + server.output.stderr, 'swordfish');
  },
);

t.test('a server that ends is alive to its supervisor, and keeps nobody', async (t) => {
  const { app, url } = await startServer(t, { drainSeconds: 3 });
  const closed = app.close();
  const ask = async (path: string, init?: RequestInit) => {
    const { status, headers } = await fetch(url + path, init);
    return { status, connection: headers.get('connection') };
  };
  await until(async () => (await ask('/readyz')).status === 503);
  t.strictSame(await ask('/livez'), { status: 200, connection: 'close' });
  t.strictSame(await ask('/token', { method: 'POST' }), { status: 503, connection: 'close' });
  await closed;
});

t.test(
  'a request that never comes whole is waited for no longer than at other times',
  async (t) => {
    const { app, url } = await startServer(t, { requestTimeoutSeconds: 1 });
    const slow = [head.slice(0, 30), head + body.slice(0, 20)].map((octets) => {
      const { socket, closed } = dial(url);
      t.teardown(() => socket.destroy());
      socket.write(octets);
      return closed;
    });
    await new Promise((resolve) => setTimeout(resolve, 300));
    await app.close();
    await Promise.all(slow);
  },
);

t.test(
  'a server whose output has no room starts, answers, and ends with exit code 0',
  { skip: !existsSync('/dev/full') && 'there is no such device here' },
  async (t) => {
    const { url: databaseUrl } = await createTestDatabase(t);
    const PORT = String(await freePort());
    for (const WORKERS of ['1', '2']) {
      const server = startGroup(
        t,
        ['/bin/sh', '-c', 'exec "$0" "$@" >/dev/full 2>&1', process.execPath, LAUNCHER, 'serve'],
        { DATA_DIR: temporaryDirectory(t), DATABASE_URL: databaseUrl, PORT, WORKERS },
      );
      /** Writes a line into the log. */
      const refused = async () => {
        const { status } = await fetch(`http://127.0.0.1:${PORT}/token`, {
          method: 'POST',
          body: 'x',
        });
        t.equal(status, 415);
      };
      const isReady = () =>
        fetch(`http://127.0.0.1:${PORT}/readyz`).then(
          ({ ok }) => ok,
          () => false,
        );
      await until(isReady);
      // So that something is left to be written at the end.
      await Promise.all(Array.from({ length: 20 }, refused));
      server.signalGroup('SIGTERM');
      t.equal(await Promise.race([server.exit, delay(12_000, 'waiting')]), 0, WORKERS);
    }
  },
);

t.test('a signal to the whole process group ends the primary and its workers', async (t) => {
  const env = { DATA_DIR: temporaryDirectory(t), WORKERS: '2' };
  // `setsid` gives the server a group of its own, which `kill -- -PID` then signals as a supervisor does.
  const server = await serve(t, { env }, ['setsid', process.execPath, 'src/heirloom.js', 'serve']);
  t.equal(await server.stop('group'), 0);
});
