/** What cannot work ends with one clear line and exit code 1, before anything is created. */
import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync } from 'node:fs';
import { Agent, get } from 'node:http';
import { createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { createTestDatabase } from '../support/database.ts';
import {
  CHECKOUT,
  heirloom,
  LAUNCHER,
  run,
  serve,
  temporaryDirectory,
} from '../support/process.ts';

const refused: readonly (readonly [Record<string, string>, RegExp])[] = [
  [{ PORT: 'abc' }, /^PORT must be a whole number from 0 to 65535, not "abc"\.$/],
  [{ PORT: '65536' }, /^PORT must be/],
  [{ ACCESS_TOKEN_LIFETIME: '-1' }, /^ACCESS_TOKEN_LIFETIME must be a whole number/],
  [{ ACCESS_TOKEN_LIFETIME: '0' }, /^ACCESS_TOKEN_LIFETIME must be/],
  [{ RETRY_WINDOW: '301' }, /^RETRY_WINDOW must be/],
  [{ SHUTDOWN_DELAY: '301' }, /^SHUTDOWN_DELAY must be/],
  [{ RETRY_WINDOW: '60', ACCESS_TOKEN_LIFETIME: '60' }, /^RETRY_WINDOW must be below/],
  [{ REFRESH_TOKEN_IDLE_LIFETIME: '10', REFRESH_TOKEN_LIFETIME: '9' }, /must not exceed/],
  [{ LOG_LEVEL: 'loud' }, /^LOG_LEVEL must be one of/],
  [{ DOCS: 'yes' }, /^DOCS must be one of on, off/],
  [{ ISSUER: 'https://a.example/?q' }, /^ISSUER must be/],
  [{ ISSUER: 'ftp://a.example' }, /^ISSUER must be/],
  [{ DATA_DIR: '/tmp/one\ntwo' }, /^DATA_DIR must be one line, not "\/tmp\/one\\ntwo"\.$/],
  [{ DATABASE_URL: 'mysql://u:swordfish@h/d' }, /^DATABASE_URL must look like/],
  [{ DATABASE_URL: 'postgres://u:swordfish@h/d?sslMode=require' }, /^DATABASE_URL has a .* TLS/],
  [{ DATABASE_URL: 'postgres://u:swordfish@127.0.0.1:1/d?ssl' }, /^DATABASE_URL has a .* TLS/],
  [{ DATABASE_URL: 'postgres://u@127.0.0.1:1/d?sslmode=' }, /^DATABASE_URL has a .* TLS/],
  [
    {
      DATABASE_URL: 'postgres://h/d',
      MIGRATION_DATABASE_URL: 'postgres://h/d?usetls&sslmode=require',
    },
    /^MIGRATION_DATABASE_URL has a .* TLS/,
  ],
  [{ REDIS_URL: 'http://u:swordfish@h' }, /^REDIS_URL must look like/],
  [{ REDIS_URL: 'redis://u:swordfish@h/limits' }, /^REDIS_URL must look like/],
  [{ REDIS_URL: 'redis://u:swordfish@h/0?db=limits' }, /^REDIS_URL must look like/],
  [{ REDIS_URL: 'redis://u:swordfish%ff@h' }, /^REDIS_URL must look like/],
  [{ REDIS_URL: 'redis://u:swordfish@h/0?ssl=true' }, /^REDIS_URL must look like .* TLS\.$/],
  [{ TRUST_PROXY: 'everybody' }, /^TRUST_PROXY must be/],
  [{ HOST: '0.0.0.0', DATABASE_URL: 'postgres://h/d' }, /^ISSUER is required/],
  [{ HOST: '192.0.2.1' }, /^The embedded database/],
  [{ ISSUER: 'https://login.example' }, /^The embedded database/],
  [{ TRUST_PROXY: '1' }, /^The embedded database/],
  [{ HOST: '::ffff:0.0.0.0', DATABASE_URL: 'postgres://h/d' }, /^ISSUER is required/],
  [{ HOST: '0x0', DATABASE_URL: 'postgres://h/d' }, /^HOST must be/],
  [{ HOST: '0.0', DATABASE_URL: 'postgres://h/d' }, /^HOST must be/],
  [{ ISSUER: 'https:h' }, /^ISSUER must be/],
  [{ TRUST_PROXY: '0.0.0.0/0' }, /^TRUST_PROXY must be/],
  [
    { RATE_LIMIT: 'off', TRUST_PROXY: '1', DATABASE_URL: 'postgres://h/d' },
    /^RATE_LIMIT=off is only accepted/,
  ],
  [
    { RATE_LIMIT: 'off', HOST: '192.0.2.1', DATABASE_URL: 'postgres://h/d' },
    /^RATE_LIMIT=off is only accepted/,
  ],
  [
    { DATABASE_URL: 'postgres://someone:swordfish@127.0.0.1:1/db' },
    /^Cannot migrate the database at 127\.0\.0\.1:1\/db: .*ECONNREFUSED/,
  ],
  [
    {
      DATABASE_URL:
        'postgres://u@127.0.0.1:1/db?sslmode=require&sslnegotiation=direct&channel_binding=require',
    },
    /^Cannot migrate the database at 127\.0\.0\.1:1\/db: .*ECONNREFUSED/,
  ],
  [
    { DATABASE_URL: 'postgres://u:swordfish@127.0.0.1:1/db?sslrootcert=/nonexistent' },
    /^Cannot migrate the database at 127\.0\.0\.1:1\/db: ENOENT: .*'\/nonexistent'$/,
  ],
];

t.test(
  'STO-10 ASVS 13.2.3: a value that makes no sense stops the start with one line and creates nothing',
  async (t) => {
    for (const [env, line] of refused) {
      const dataDir = join(temporaryDirectory(t), 'data');
      const { code, stdout, stderr } = await heirloom(['serve'], {
        env: { DATA_DIR: dataDir, ...env },
      });
      const name = JSON.stringify(env);
      t.equal(code, 1, name);
      t.equal(stdout, '', name);
      t.match(stderr, /^[^\n]+\n$/, `one line for ${name}`);
      t.match(stderr.trim(), line);
      t.notMatch(stderr, /swordfish/, 'no password');
      t.notOk(existsSync(dataDir), `nothing created for ${name}`);
    }
  },
);

t.test('a port in use is said before anything is created', async (t) => {
  const occupant = createServer();
  const port = await new Promise<number>((resolve) => {
    occupant.listen(0, '127.0.0.1', () => resolve((occupant.address() as { port: number }).port));
  });
  t.teardown(() => occupant.close());
  const dataDir = join(temporaryDirectory(t), 'data');
  const { code, stderr } = await heirloom(['serve'], {
    env: { DATA_DIR: dataDir, PORT: String(port) },
  });
  t.equal(code, 1);
  t.equal(stderr, `Port in use: 127.0.0.1:${port}. Set PORT to another one.\n`);
  t.notOk(existsSync(dataDir));
});

t.test('a Node that is too old is told so in one line', async (t) => {
  // The launcher sees the version that this says, as an old Node would say its own.
  const pretend = "Object.defineProperty(process.versions, 'node', { value: '18.20.0' })";
  const { code, stderr } = await run(process.execPath, [
    '--import',
    `data:text/javascript,${encodeURIComponent(pretend)}`,
    join(CHECKOUT, 'src/heirloom.js'),
  ]);
  t.equal(code, 1);
  t.equal(stderr, 'Node 18.20.0 is too old: 22.18 or newer is needed.\n');
});

t.test('a checkout below a directory dist is none that was compiled', async (t) => {
  const checkout = join(temporaryDirectory(t), 'dist/heirloom');
  mkdirSync(checkout, { recursive: true });
  cpSync(join(CHECKOUT, 'src'), join(checkout, 'src'), { recursive: true });
  cpSync(join(CHECKOUT, 'package.json'), join(checkout, 'package.json'));
  const pretend = "Object.defineProperty(process.versions, 'node', { value: '20.19.0' })";
  const { code, stderr } = await run(process.execPath, [
    '--import',
    `data:text/javascript,${encodeURIComponent(pretend)}`,
    join(checkout, 'src/heirloom.js'),
  ]);
  t.equal(code, 1);
  t.equal(stderr, 'Node 20.19.0 is too old: 22.18 or newer is needed.\n');
});

t.test('variables about other PostgreSQL servers do not reach the embedded one', async (t) => {
  const { url } = await serve(t, {
    env: {
      DATA_DIR: temporaryDirectory(t),
      PGSSLMODE: 'require',
      PGSSLNEGOTIATION: 'direct',
      PGOPTIONS: '-c search_path=nowhere -c statement_timeout=1',
    },
  });
  t.equal((await fetch(`${url}/readyz`)).status, 200);
});

const mapped = ['-Ur', '--', 'true'];
t.test(
  'root of a namespace without other users is told whom PostgreSQL lacks, and leaves nothing',
  { skip: spawnSync('unshare', mapped).status !== 0 && 'needs user namespaces' },
  async (t) => {
    const dataDir = join(temporaryDirectory(t), 'data');
    const { code, stderr } = await run(
      'unshare',
      ['-Ur', '--', process.execPath, LAUNCHER, 'serve'],
      { env: { DATA_DIR: dataDir, PORT: '0' } },
    );
    t.equal(code, 1);
    t.match(stderr, /^PostgreSQL refuses to run as root, and nothing can be run as user [^\n]*\n$/);
    t.notOk(existsSync(dataDir));
  },
);

t.test('a worker that cannot listen ends the start', async (t) => {
  // As when another process takes the port between the probe and the workers.
  const pretend =
    "import cluster from 'node:cluster'; import net from 'node:net'; " +
    'const refuse = function () { process.nextTick(() => this.emit("error", ' +
    'Object.assign(new Error("listen EACCES"), { code: "EACCES" }))); return this }; ' +
    'if (cluster.worker?.id === 2) net.Server.prototype.listen = refuse';
  const { code, stderr } = await heirloom(['serve'], {
    env: {
      DATA_DIR: temporaryDirectory(t),
      PORT: '0',
      WORKERS: '2',
      // Of no use to a worker that listens already: nobody was told where.
      SHUTDOWN_DELAY: '300',
      NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(pretend)}`,
    },
  });
  t.equal(code, 1);
  t.match(stderr, /^Cannot listen: listen EACCES\. Look at HOST and PORT\.\n/);
  t.match(stderr, /\nA worker ended before it listened\.\n$/);
});

t.test('where there are no PostgreSQL binaries one line says what to set', async (t) => {
  // A musl system, as the launcher recognises one.
  const pretend =
    'const report = process.report.getReport(); delete report.header.glibcVersionRuntime; process.report.getReport = () => report';
  const dataDir = join(temporaryDirectory(t), 'data');
  const { code, stderr } = await run(
    process.execPath,
    [
      '--import',
      `data:text/javascript,${encodeURIComponent(pretend)}`,
      join(CHECKOUT, 'src/heirloom.js'),
      'serve',
    ],
    { env: { DATA_DIR: dataDir, PORT: '0' } },
  );
  t.equal(code, 1);
  t.equal(
    stderr,
    `No embedded PostgreSQL for ${process.platform}-${process.arch} (musl). ` +
      'Set DATABASE_URL=postgres://user:password@host:5432/db and start again.\n',
  );
  t.notOk(existsSync(dataDir));
});

t.test(
  'PWD-22 ASVS 6.3.2: a fresh database of one’s own holds no account, and one with demo accounts is refused',
  async (t) => {
    const { url, inspect } = await createTestDatabase(t);
    const clean = await serve(t, { env: { DATABASE_URL: url } });
    t.equal((await fetch(`${clean.url}/docs`)).status, 404, 'no docs by default');
    t.notMatch(clean.output.stdout, /demo/i);
    const people = await inspect.query('select from resource_owner');
    t.equal(people.rowCount, 0, 'no account');
    await clean.stop();

    await inspect.query("insert into resource_owner (username, is_demo) values ('alice', true)");
    const { code, stderr } = await heirloom(['serve'], { env: { DATABASE_URL: url, PORT: '0' } });
    t.equal(code, 1);
    t.match(stderr, /^The database at DATABASE_URL holds demo accounts[^\n]*\n$/);
  },
);

t.test('SIGTERM ends the server with exit code 0', async (t) => {
  const { url: databaseUrl } = await createTestDatabase(t);
  const server = await serve(t, { env: { DATABASE_URL: databaseUrl } });
  t.equal((await fetch(`${server.url}/readyz`)).status, 200);
  t.equal(await server.stop(), 0);
});

t.test('F03 DOS-12: whoever keeps a connection learns that the server stops', async (t) => {
  const { url: databaseUrl } = await createTestDatabase(t);
  const server = await serve(t, { env: { DATABASE_URL: databaseUrl, LOG_LEVEL: 'silent' } });
  let asked = 0;
  /** Asks again and again over one connection, until it is told to close it. */
  const askUntilClosed = async (path: string): Promise<number> => {
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    t.teardown(() => agent.destroy());
    for (;;) {
      const { status, connection } = await ask(agent, `${server.url}${path}`);
      asked++;
      if (connection === 'close') return status;
    }
  };
  const clients = Array.from({ length: 16 }, () => askUntilClosed('/.well-known/none'));
  const supervisors = Array.from({ length: 4 }, () => askUntilClosed('/livez'));
  while (asked < 500) await delay(10);
  const stopped = server.stop();
  for (const status of await Promise.all(clients)) t.ok(status === 503 || status === 404);
  for (const status of await Promise.all(supervisors)) t.equal(status, 200, 'it is alive');
  t.equal(await stopped, 0);
});

const ask = (agent: Agent, url: string) =>
  new Promise<{ status: number; connection: string | undefined }>((resolve, reject) => {
    get(url, { agent }, (response) => {
      const { statusCode: status = 0, headers } = response;
      response.resume().once('end', () => resolve({ status, connection: headers.connection }));
    }).once('error', reject);
  });
