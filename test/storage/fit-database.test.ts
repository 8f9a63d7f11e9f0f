/** Databases that a server does not start on, and says why in one line. */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import pg from 'pg';
import t, { type Test } from 'tap';
import { openDatabase } from '../../src/storage/database.ts';
import { migrate } from '../../src/storage/migrate.ts';
import { createTestDatabase } from '../support/database.ts';
import { administer, joinTestPostgres } from '../support/postgres.ts';

const open = (databaseUrl: string) =>
  openDatabase({
    databaseUrl,
    maximumConnections: 2,
    acquireTimeoutSeconds: 10,
    statementTimeoutSeconds: 15,
    lockTimeoutSeconds: 1,
  });

t.test('an encoding that cannot hold every name is refused', async (t) => {
  const postgres = await joinTestPostgres();
  const like = "encoding 'LATIN1' locale_provider libc locale 'C' template template0";
  await administer(postgres.url('postgres'), `create database heirloom_test_latin ${like}`);
  t.teardown(() => administer(postgres.url('postgres'), 'drop database heirloom_test_latin'));
  const url = postgres.url('heirloom_test_latin');
  const refused = {
    name: 'StartUpError',
    message: /^The encoding of the database is LATIN1, [^\n]+$/,
  };
  await t.rejects(migrate(url), refused);
  await assertUntouched(t, url);
  await t.rejects(open(url), refused);
});

/** Whoever is told to use another database finds this one as it was. */
async function assertUntouched(t: Test, url: string): Promise<void> {
  const database = new pg.Client({ connectionString: url });
  await database.connect();
  const { rows } = await database.query(
    "select relname from pg_class where relnamespace = 'public'::regnamespace",
  );
  await database.end();
  t.strictSame(rows, [], 'nothing has been migrated');
}

t.test(
  'a server that is too old is told by its version, not by a setting that it lacks',
  async (t) => {
    const { url } = await createTestDatabase(t, 'template1');
    const old = await startOldServer(t, url);
    const refused = {
      name: 'StartUpError',
      message: /^PostgreSQL 13 is too old: version \d+ or newer is needed\.$/,
    };
    await t.rejects(migrate(old), refused);
    await assertUntouched(t, url);
    await t.rejects(open(old), refused);
  },
);

/** PostgreSQL 13 says another version and knows nothing of what is asked by names that are new. */
async function startOldServer(t: Test, databaseUrl: string): Promise<string> {
  const { port, hostname } = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  const server = createServer((client) => {
    const upstream = connect(Number(port), hostname);
    for (const socket of [client, upstream]) sockets.add(socket.on('error', () => {}));
    // Of the same length, because messages begin with theirs.
    client.on('data', (chunk: Buffer) => {
      const said = chunk
        .toString('latin1')
        .replaceAll('idle_session_timeout', 'idle_session_unknown')
        .replaceAll("'server_version_num'", "'pretended.versions'");
      upstream.write(said, 'latin1');
    });
    upstream.pipe(client);
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    server.close();
  });
  const old = new URL(databaseUrl);
  old.host = `127.0.0.1:${(server.address() as AddressInfo).port}`;
  old.searchParams.set('options', '-c pretended.versions=130023');
  return old.href;
}

t.test('a pooler that shares sessions between connections is refused', async (t) => {
  const { url } = await createTestDatabase(t);
  const pooled = await startTransactionPooler(t, url);
  await t.rejects(open(pooled), {
    name: 'StartUpError',
    message: /^The pooler in front of the database [^\n]+ pool_mode = session[^\n]+$/,
  });
});

/** All that PgBouncer does by `pool_mode = transaction`, with one session for all: what comes first goes first. */
async function startTransactionPooler(t: Test, databaseUrl: string): Promise<string> {
  const session = new pg.Client({ connectionString: databaseUrl });
  session.on('error', () => {});
  await session.connect();
  const { stream } = (session as unknown as { connection: { stream: Socket } }).connection;
  stream.removeAllListeners('data');
  const waiting: { readonly request: Buffer; readonly client: Socket }[] = [];
  const askNext = () => {
    if (waiting[0] !== undefined) stream.write(waiting[0].request);
  };
  onMessages(stream, (type, message) => {
    waiting[0]?.client.write(message);
    if (type !== 'Z') return;
    waiting.shift();
    askNext();
  });

  const clients = new Set<Socket>();
  const pooler = createServer((client) => {
    clients.add(client.on('error', () => {}));
    // AuthenticationOk and ReadyForQuery, whoever it is.
    client.once('data', () => {
      client.write(Buffer.from('R\0\0\0\x08\0\0\0\0Z\0\0\0\x05I', 'latin1'));
      let request = Buffer.alloc(0);
      onMessages(client, (type, message) => {
        if (type === 'X') client.end();
        request = Buffer.concat([request, message]);
        if (type !== 'Q' && type !== 'S') return;
        if (waiting.push({ request, client }) === 1) askNext();
        request = Buffer.alloc(0);
      });
    });
  });
  await new Promise<void>((resolve) => pooler.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    for (const client of clients) client.destroy();
    stream.destroy();
    pooler.close();
  });
  const pooled = new URL(databaseUrl);
  pooled.host = `127.0.0.1:${(pooler.address() as AddressInfo).port}`;
  return pooled.href;
}

/** A message is its type, its length without the type, and what it says. */
function onMessages(socket: Socket, hear: (type: string, message: Buffer) => void): void {
  let unheard = Buffer.alloc(0);
  socket.on('data', (chunk: Buffer) => {
    unheard = Buffer.concat([unheard, chunk]);
    while (unheard.length >= 5 && unheard.length > unheard.readInt32BE(1)) {
      const end = unheard.readInt32BE(1) + 1;
      const message = unheard.subarray(0, end);
      unheard = unheard.subarray(end);
      hear(String.fromCharCode(message[0] as number), message);
    }
  });
}
