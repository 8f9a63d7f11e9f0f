/** Connections that are slow, large, many or left behind. */
import { connect, type Socket } from 'node:net';
import t, { type Test } from 'tap';
import { basic, post } from '../support/client.ts';
import { createCast } from '../support/fixtures.ts';
import { exchange, request } from '../support/raw.ts';
import { startServer } from '../support/server.ts';

const FORM = { 'Content-Type': 'application/x-www-form-urlencoded' };
const pause = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));

/** A connection that says what the test makes it say, and when the server has had enough. */
function open(
  t: Test,
  url: string,
): { socket: Socket; closed: Promise<number>; heard: () => string } {
  const { hostname, port } = new URL(url);
  const began = performance.now();
  let text = '';
  const socket = connect(Number(port), hostname);
  socket.on('data', (chunk) => {
    text += chunk;
  });
  socket.on('error', () => {});
  t.teardown(() => socket.destroy());
  const closed = new Promise<number>((resolve) => {
    socket.on('close', () => resolve((performance.now() - began) / 1000));
  });
  return { socket, closed, heard: () => text };
}

/** Writes the rest of a request octet by octet. */
async function trickle(socket: Socket, octets: string): Promise<void> {
  for (const octet of octets) {
    if (socket.destroyed) return;
    socket.write(octet);
    await pause(1000);
  }
}

const server = await startServer(t);
const { rs1 } = await createCast(server);
const isAlive = async (t: Test, why: string) =>
  t.equal((await fetch(`${server.url}/livez`)).status, 200, why);

t.test('DOS-01 ASVS 15.2.2: a body over 16 KiB is refused and its connection closed', async (t) => {
  const octets = request('POST /token', { ...FORM, 'Content-Length': '1000000' });
  const { socket, closed, heard } = open(t, server.url);
  socket.write(octets);
  socket.write('x'.repeat(100_000));
  await closed;
  t.match(heard(), /^HTTP\/1\.1 413 /);
  t.match(heard(), /\r\n\r\n\{"error":"invalid_request"\}$/);
});

t.test(
  'a proxy that sends all of a body that is too long before it listens gets the 413',
  async (t) => {
    const { hostname, port } = new URL(server.url);
    const socket = connect({ host: hostname, port: Number(port), allowHalfOpen: true });
    t.teardown(() => socket.destroy());
    const ended = new Promise((resolve) => socket.once('end', resolve).once('close', resolve));
    let trouble: string | undefined;
    socket.on('error', ({ message }) => {
      trouble = message;
    });
    socket.write(request('POST /token', { ...FORM, 'Content-Length': '900000' }));
    for (let sent = 0; sent < 9; sent++) {
      socket.write('x'.repeat(100_000));
      await pause(20);
    }
    let heard = '';
    socket.on('data', (chunk) => {
      heard += chunk;
    });
    await ended;
    t.match(heard, /^HTTP\/1\.1 413 /);
    t.equal(trouble, undefined, 'no reset, after which it would take the server for broken');
  },
);

t.test('DOS-02 RFC 6585 §5: headers over 16 KiB are 431 in JSON', async (t) => {
  const [answer] = await exchange(server.url, request('GET /livez', { 'X-A': 'x'.repeat(20_000) }));
  t.equal(answer?.status, 431);
  t.strictSame(answer?.body, { error: 'invalid_request' });
  t.equal(
    answer?.headers.get('connection'),
    'close',
    'or a proxy would send its next request there',
  );
});

t.test('DOS-03 CWE-400: headers octet by octet end within 15 s', async (t) => {
  const { socket, closed } = open(t, server.url);
  trickle(socket, `GET /livez HTTP/1.1\r\nX-A: ${'x'.repeat(100)}`);
  t.ok((await closed) < 15);
  await isAlive(t, 'and nothing else');
});

t.test('DOS-04 CWE-400: a body octet by octet ends within 15 s', async (t) => {
  const { socket, closed } = open(t, server.url);
  socket.write(request('POST /token', { ...FORM, 'Content-Length': '1000' }));
  trickle(socket, 'x'.repeat(100));
  t.ok((await closed) < 15);
  await isAlive(t, 'and nothing else');
});

t.test('DOS-08 ASVS 15.4.4: five hundred idle and slow connections stop nobody', async (t) => {
  const slow = Array.from({ length: 500 }, (_, n) => {
    const { socket } = open(t, server.url);
    if (n % 2) socket.write(request('POST /token', { ...FORM, 'Content-Length': '1000' }));
    return socket;
  });
  await pause(200);
  for (let n = 0; n < 20; n++) {
    const { status } = await post(
      `${server.url}/introspect`,
      { token: 'x' },
      basic(rs1.id, rs1.secret),
    );
    t.equal(status, 200);
  }
  t.ok(
    slow.some(({ destroyed }) => !destroyed),
    'they were there',
  );
});

t.test('more connections than allowed are not accepted, and leave room again', async (t) => {
  const small = await startServer(t, { maximumClientConnections: 20 });
  const connections = Array.from({ length: 40 }, () => open(t, small.url));
  await pause(300);
  const open20 = connections.filter(({ socket }) => !socket.destroyed && !socket.closed);
  t.equal(open20.length, 20);
  for (const { socket } of open20) socket.destroy();
  await pause(100);
  t.equal((await fetch(`${small.url}/livez`)).status, 200);
});

t.test('DOS-09 ASVS 13.2.6: a database that is held up is 503, not a hang', async (t) => {
  const locker = await server.inspect.connect();
  await locker.query('begin; lock table client in access exclusive mode');
  const answers = await Promise.all(
    Array.from({ length: 60 }, () =>
      post(`${server.url}/introspect`, { token: 'x' }, basic(rs1.id, rs1.secret)),
    ),
  );
  for (const { status, headers } of answers) {
    t.equal(status, 503);
    t.match(headers.get('retry-after'), /^[1-9]\d*$/);
  }
  await isAlive(t, 'what needs no database goes on');
  await locker.query('rollback');
  locker.release();
  const { status } = await post(
    `${server.url}/introspect`,
    { token: 'x' },
    basic(rs1.id, rs1.secret),
  );
  t.equal(status, 200);
});

t.test('DOS-13 ASVS 16.5.4: an exception in one request ends that request only', async (t) => {
  const broken = await startServer(t);
  const { authorizationServer } = broken.dependencies;
  const { introspect } = authorizationServer;
  Object.assign(authorizationServer, {
    introspect: async () => {
      throw new TypeError('a bug');
    },
  });
  const ask = () => post(`${broken.url}/introspect`, { token: 'x' }, basic('x', 'x'));
  const failed = await ask();
  t.equal(failed.status, 500);
  t.strictSame(failed.body, { error: 'server_error' });
  Object.assign(authorizationServer, { introspect });
  t.equal((await ask()).status, 401);
});
