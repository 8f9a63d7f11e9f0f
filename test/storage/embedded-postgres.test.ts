/** Each test has a directory and a server of its own; those about users and permissions need root. */
import { type ChildProcess, spawn } from 'node:child_process';
import { createHash } from 'node:crypto';
import { once } from 'node:events';
import {
  access,
  chmod,
  chown,
  cp,
  mkdir,
  mkdtemp,
  readdir,
  readFile,
  readlink,
  rm,
  rmdir,
  stat,
  symlink,
  writeFile,
} from 'node:fs/promises';
import { type AddressInfo, createServer } from 'node:net';
import { networkInterfaces, tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import t, { type Test } from 'tap';
import { StartUpError } from '../../src/start-up-error.ts';
import {
  locateBinaries,
  missingBinariesMessage,
  prepareBinaries,
} from '../../src/storage/embedded-binaries.ts';
import { runProgram } from '../../src/storage/embedded-place.ts';
import {
  type EmbeddedPostgres,
  startEmbeddedPostgres,
} from '../../src/storage/embedded-postgres.ts';

// The default is 30 seconds a file, and a killed process's lock takes 10 to expire.
t.setTimeout(180_000);

const isRoot = process.getuid?.() === 0;
const onlyAsRoot = { skip: isRoot ? false : 'needs root' };
const nobody = { name: 'nobody', uid: 65534, gid: 65534 };

async function createTemporaryDir(t: Test): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), 'heirloom-test-'));
  // As root, the server runs as a user who has to pass this directory.
  await chmod(dir, 0o755);
  t.teardown(() => rm(dir, { recursive: true, force: true }));
  return dir;
}

interface StartOptions {
  settings?: Record<string, string>;
  notices?: string[];
}

async function start(t: Test, dataDir: string, options: StartOptions = {}) {
  const server = await startEmbeddedPostgres({
    dataDir,
    notice: (line) => options.notices?.push(line),
    settings: { fsync: 'off', ...options.settings },
  });
  t.teardown(() => server.stopIfIdle());
  return server;
}

async function query(server: EmbeddedPostgres, sql: string, database = 'heirloom') {
  const client = new pg.Client({ connectionString: server.url(database) });
  await client.connect();
  try {
    return (await client.query(sql)).rows;
  } finally {
    await client.end();
  }
}

function inServerDir(dataDir: string, path: string): string {
  return join(dataDir, 'postgresql-18', path);
}

async function postmasterPid(dataDir: string): Promise<number> {
  const text = await readFile(inServerDir(dataDir, 'cluster/postmaster.pid'), 'utf8');
  return Number(text.split('\n')[0]);
}

function startProcess(t: Test, dataDir: string, args: string[] = [], user?: typeof nobody) {
  const fixture = join(import.meta.dirname, '../fixtures/embedded-postgres-process.ts');
  const child = spawn(process.execPath, [fixture, dataDir, ...args], {
    stdio: ['ignore', 'pipe', 'inherit'],
    ...(user && { uid: user.uid, gid: user.gid }),
  });
  t.teardown(() => kill(child));
  return child;
}

async function firstLine(child: ChildProcess) {
  for await (const chunk of child.stdout ?? []) return JSON.parse(String(chunk));
  throw new Error('the process has ended without a word');
}

async function kill(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill('SIGKILL');
  await once(child, 'exit');
}

function hasEnded(pid: number): boolean {
  try {
    return !process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === 'ESRCH';
  }
}

async function waitUntil(condition: () => Promise<boolean>): Promise<void> {
  for (let attempt = 0; attempt < 500; attempt += 1) {
    if (await condition()) return;
    await delay(20);
  }
  throw new Error('waited in vain');
}

t.test('a first start creates a UTF-8 database heirloom', async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'missing', 'data');
  const notices: string[] = [];
  const server = await start(t, dataDir, { notices });
  const [row] = await query(
    server,
    `select current_user as owner, getdatabaseencoding() as encoding,
            current_setting('server_version_num')::int / 10000 as major,
            current_setting('max_connections') as connections,
            current_setting('synchronous_commit') as commit`,
  );
  const encoding = 'UTF8';
  t.strictSame(row, { owner: 'heirloom', encoding, major: 18, connections: '200', commit: 'on' });
  t.strictSame(notices, []);
  t.equal(server.url('a b'), server.url('heirloom').replace('/heirloom?', '/a%20b?'));
});

t.test('nobody else can read the cluster, the password or the log', async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  const { password } = await start(t, dataDir);
  const modeOf = async (path: string) => (await stat(inServerDir(dataDir, path))).mode & 0o777;
  t.equal(await modeOf(''), 0o700);
  t.equal(await modeOf('cluster'), 0o700);
  t.equal(await modeOf('password'), 0o600);
  t.equal(await modeOf('server.log'), 0o600);
  t.match(password, /^[\w-]{43}$/);
  t.equal(await readFile(inServerDir(dataDir, 'password'), 'utf8'), password);
  t.strictSame(await readdir(dataDir), ['postgresql-18'], 'the lock is released');
});

t.test('a second start reuses the server, and the last one to leave stops it', async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  const first = await start(t, dataDir);
  const pid = await postmasterPid(dataDir);
  const second = await start(t, dataDir);
  t.equal(await postmasterPid(dataDir), pid);
  t.equal(second.url('heirloom'), first.url('heirloom'));
  t.equal(await first.stopIfIdle(), 'in-use');
  t.strictSame(await query(second, 'select 1 as one'), [{ one: 1 }]);
  t.equal(await second.stopIfIdle(), 'stopped');
  // A stopped child stays a zombie, which a signal still finds, until Node has waited for it.
  await waitUntil(async () => hasEnded(pid));
  t.equal(await second.stopIfIdle(), 'stopped', 'stopping twice does no harm');
});

t.test('data survives a stop and a start', async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  const before = await start(t, dataDir);
  await query(before, 'create table kept as select 42 as answer');
  t.equal(await before.stopIfIdle(), 'stopped');
  const after = await start(t, dataDir);
  t.strictSame(await query(after, 'select answer from kept'), [{ answer: 42 }]);
  t.equal(after.password, before.password);
});

t.test('two processes that start at once on an empty directory share one server', async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  const children = [startProcess(t, dataDir), startProcess(t, dataDir)];
  const [one, other] = await Promise.all(children.map(firstLine));
  t.strictSame(one, other);
  t.equal((await start(t, dataDir)).port, one.port);
  await Promise.all(children.map(kill));
});

t.test('the server of a process that was killed is reused', async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  const child = startProcess(t, dataDir);
  const { port } = await firstLine(child);
  const pid = await postmasterPid(dataDir);
  await kill(child);
  const server = await start(t, dataDir);
  t.equal(server.port, port);
  t.equal(await postmasterPid(dataDir), pid);
  t.equal(await server.stopIfIdle(), 'stopped', 'who was killed does not count any more');
});

t.test('a process with nothing left to do ends, and its server stays', async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  const child = startProcess(t, dataDir, ['leave']);
  const { port } = await firstLine(child);
  const [exitCode] = child.exitCode === null ? await once(child, 'exit') : [child.exitCode];
  t.equal(exitCode, 0);
  t.equal((await start(t, dataDir)).port, port);
});

t.test('a process killed during initdb leaves nothing in the way', async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  const child = startProcess(t, dataDir);
  const isHalfMade = async () => {
    const names = await readdir(dataDir).catch(() => []);
    return names.some((name) => name.includes('.partial-'));
  };
  await waitUntil(isHalfMade);
  await kill(child);
  t.ok(await isHalfMade());
  const notices: string[] = [];
  const server = await start(t, dataDir, { notices });
  t.equal(notices.length, 1);
  t.match(notices[0], /^Waiting for a process that starts or stops PostgreSQL; [^\n]*$/);
  t.strictSame(await query(server, 'select 1 as one'), [{ one: 1 }]);
  t.strictSame(await readdir(dataDir), ['postgresql-18']);
});

t.test('after a SIGKILL of PostgreSQL a start recovers, at the same address', async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  const before = await start(t, dataDir);
  await query(before, 'create table kept as select 42 as answer');
  process.kill(await postmasterPid(dataDir), 'SIGKILL');
  const after = await start(t, dataDir);
  t.strictSame(await query(after, 'select answer from kept'), [{ answer: 42 }]);
  t.equal(after.port, before.port);
  const presences = `select from pg_stat_activity where application_name = 'heirloom-presence'`;
  await waitUntil(async () => (await query(after, presences)).length === 2);
  t.equal(await after.stopIfIdle(), 'in-use', 'the first process is present again');
  t.equal(await before.stopIfIdle(), 'stopped');
});

t.test('a stop after PostgreSQL has gone says stopped', async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  const server = await start(t, dataDir);
  process.kill(await postmasterPid(dataDir), 'SIGKILL');
  await waitUntil(async () => (await server.stopIfIdle()) === 'stopped');
});

t.test('a process id that another process has by now does not prevent a start', async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  await (await start(t, dataDir)).stopIfIdle();
  const { uid, gid } = await stat(inServerDir(dataDir, 'cluster'));
  const other = spawn('sleep', ['60'], isRoot ? { uid, gid } : {});
  t.teardown(() => kill(other));
  const pidPath = inServerDir(dataDir, 'cluster/postmaster.pid');
  const clusterDir = inServerDir(dataDir, 'cluster');
  await writeFile(pidPath, `${other.pid}\n${clusterDir}\n1\n5432\n\n127.0.0.1\n`, { mode: 0o600 });
  await chown(pidPath, uid, gid);
  t.strictSame(await query(await start(t, dataDir), 'select 1 as one'), [{ one: 1 }]);
  t.equal(other.exitCode, null, 'the other process is left alone');
});

t.test('a port that is taken by now is replaced by another', async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  const crashed = await start(t, dataDir);
  process.kill(await postmasterPid(dataDir), 'SIGKILL');
  const occupant = createServer();
  t.teardown(() => occupant.close());
  await waitUntil(
    () =>
      new Promise((resolve) => {
        occupant.once('error', () => resolve(false));
        occupant.listen(crashed.port, '127.0.0.1', () => resolve(true));
      }),
  );
  const server = await start(t, dataDir);
  t.not(server.port, (occupant.address() as AddressInfo).port);
  t.strictSame(await query(server, 'select 1 as one'), [{ one: 1 }]);
});

t.test('a stop says in-use while another client is connected', async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  const server = await start(t, dataDir);
  const client = new pg.Client({ connectionString: server.url('postgres') });
  await client.connect();
  t.equal(await server.stopIfIdle(), 'in-use');
  t.strictSame((await client.query('select 1 as one')).rows, [{ one: 1 }]);
  await client.end();
  t.equal(await server.stopIfIdle(), 'stopped');
});

t.test('the server listens on loopback only and refuses a wrong password', async (t) => {
  const server = await start(t, join(await createTemporaryDir(t), 'data'));
  const [row] = await query(
    server,
    `select current_setting('listen_addresses') as addresses,
            current_setting('unix_socket_directories') as sockets`,
  );
  t.strictSame(row, { addresses: '127.0.0.1', sockets: '' });
  const { port } = server;
  const others = Object.values(networkInterfaces()).flatMap((found) => found ?? []);
  for (const { address } of others.filter(
    ({ family, internal }) => family === 'IPv4' && !internal,
  )) {
    const client = new pg.Client({ host: address, port, user: 'heirloom', password: 'wrong' });
    await t.rejects(client.connect(), { code: 'ECONNREFUSED' });
  }
  const intruder = new pg.Client({ host: '127.0.0.1', port, user: 'heirloom', password: 'wrong' });
  await t.rejects(intruder.connect(), { code: '28P01' });
});

t.test('the server has a session of its own', { skip: process.platform !== 'linux' }, async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  await start(t, dataDir);
  const pid = await postmasterPid(dataDir);
  const fields = (await readFile(`/proc/${pid}/stat`, 'utf8')).split(') ')[1]?.split(' ');
  t.strictSame(fields?.slice(2, 4), [String(pid), String(pid)], 'leads its group and session');
});

t.test('the log keeps values of a statement that failed to itself', async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  const server = await start(t, dataDir);
  await t.rejects(query(server, `select 'in-the-text', 1/0`), { code: '22012' });
  const log = await readFile(inServerDir(dataDir, 'server.log'), 'utf8');
  t.match(log, /division by zero/);
  t.notMatch(log, /in-the-text/);
  t.notMatch(log, server.password);
});

t.test('a server that does not start is explained in one line', async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  const failed = start(t, dataDir, { settings: { shared_buffers: 'plenty' } });
  const error = (await failed.catch((thrown) => thrown)) as StartUpError;
  t.type(error, StartUpError);
  const logPath = inServerDir(dataDir, 'server.log');
  t.equal(
    error.message,
    'PostgreSQL did not start: FATAL:  invalid value for parameter "shared_buffers": "plenty" ' +
      `(log: ${logPath})`,
  );
});

t.test('a password file that does not fit is named and not shown', async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  const server = await start(t, dataDir);
  const passwordPath = inServerDir(dataDir, 'password');
  await writeFile(passwordPath, 'not-the-password');
  await t.rejects(start(t, dataDir), {
    message: `PostgreSQL refuses the password in ${passwordPath}`,
  });
  await rm(passwordPath);
  await t.rejects(start(t, dataDir), { message: /cannot use its files: ENOENT.*password/ });
  await writeFile(passwordPath, server.password);
});

t.test('a directory that cannot be created is explained in one line', async (t) => {
  const dir = await createTemporaryDir(t);
  await writeFile(join(dir, 'file'), '');
  const error = await start(t, join(dir, 'file', 'data')).catch((thrown) => thrown);
  t.type(error, StartUpError);
  t.match(error.message, /^The embedded PostgreSQL cannot use its files: ENOTDIR[^\n]*$/);
});

t.test('a link in place of the log is not followed', async (t) => {
  const dir = await createTemporaryDir(t);
  const dataDir = join(dir, 'data');
  await (await start(t, dataDir)).stopIfIdle();
  const logPath = inServerDir(dataDir, 'server.log');
  await rm(logPath);
  await symlink(join(dir, 'victim'), logPath);
  await t.rejects(start(t, dataDir), StartUpError);
  await t.rejects(access(join(dir, 'victim')), { code: 'ENOENT' });
});

t.test('where there are no binaries one line says what to do instead', async (t) => {
  t.equal(
    missingBinariesMessage('linux', 'x64', true),
    'No embedded PostgreSQL for linux-x64 (musl). ' +
      'Set DATABASE_URL=postgres://user:password@host:5432/db and start again.',
  );
  t.equal(
    missingBinariesMessage('win32', 'arm64', false),
    'No embedded PostgreSQL for win32-arm64. ' +
      'Set DATABASE_URL=postgres://user:password@host:5432/db and start again.',
  );
});

t.test('on musl, and where no package fits, nothing is created', async (t) => {
  const dir = await createTemporaryDir(t);
  t.intercept(process, 'arch', { value: 's390x' });
  const message = missingBinariesMessage(process.platform, 's390x', false);
  await t.rejects(start(t, join(dir, 'data')), { message });
  t.intercept(process, 'platform', { value: 'linux' });
  t.intercept(process, 'arch', { value: 'x64' });
  t.intercept(process.report, 'getReport', { value: () => ({ header: {} }) });
  await t.rejects(
    start(t, join(dir, 'data')),
    new StartUpError(missingBinariesMessage('linux', 'x64', true)),
  );
  t.strictSame(await readdir(dir), []);
});

/** The package as it is installed with install scripts off. */
async function copyPackageWithoutLinks(targetDir: string): Promise<string> {
  const isLink = async (path: string) => readlink(path).then(Boolean, () => false);
  await cp(await locateBinaries(), targetDir, {
    recursive: true,
    filter: async (path) => !(await isLink(path)),
  });
  return targetDir;
}

t.test('binaries without library links run from a copy, which is reused', async (t) => {
  const dir = await createTemporaryDir(t);
  const packageDir = await copyPackageWithoutLinks(join(dir, 'package'));
  const baseDir = join(dir, 'data');
  await mkdir(join(baseDir, 'postgresql-18.0.1'), { recursive: true });
  const place = { baseDir, user: isRoot ? nobody : undefined };
  const notices: string[] = [];
  const prepare = () => prepareBinaries(packageDir, place, (line) => notices.push(line));

  const binDir = await prepare();
  t.match(binDir, /^.*\/data\/postgresql-18\.\d[^/]*\/native\/bin$/);
  const { output } = await runProgram(join(binDir, 'postgres'), ['--version'], place.user);
  t.match(output, /^postgres \(PostgreSQL\) 18\.\d+$/);
  t.equal(notices.length, 1);
  t.match(notices[0], /^PostgreSQL runs from a copy in [^\n]*libicu[^\n]*$/);
  t.equal((await readdir(baseDir)).length, 1, 'neither another version nor a partial copy is left');

  t.equal(await prepare(), binDir);
  t.equal(notices.length, 1);
  await writeFile(join(binDir, 'initdb'), 'broken');
  t.equal(await prepare(), binDir);
  t.equal(notices.length, 2, 'a damaged copy is made again');
});

t.test('binaries that run nowhere are explained in one line', async (t) => {
  const dir = await createTemporaryDir(t);
  const packageDir = join(dir, 'package');
  await mkdir(join(packageDir, 'native/bin'), { recursive: true });
  await writeFile(join(packageDir, 'package.json'), '{"version":"18.9.0"}');
  await writeFile(join(packageDir, 'native/pg-symlinks.json'), '[]');
  const place = { baseDir: dir, user: undefined };
  await t.rejects(
    prepareBinaries(packageDir, place, () => {}),
    { message: /^The embedded PostgreSQL does not run on this machine \([^\n]*ENOENT[^\n]*$/ },
  );
});

t.test(
  'binaries in a directory closed to the server user run from a copy',
  onlyAsRoot,
  async (t) => {
    const dir = await createTemporaryDir(t);
    await mkdir(join(dir, 'closed'), { mode: 0o700 });
    const packageDir = join(dir, 'closed', 'package');
    await cp(await locateBinaries(), packageDir, { recursive: true, verbatimSymlinks: true });
    const place = { baseDir: join(dir, 'data'), user: nobody };
    await mkdir(place.baseDir);
    const binDir = await prepareBinaries(packageDir, place, () => {});
    t.match(binDir, /\/data\//);
    t.equal((await stat(join(binDir, 'postgres'))).uid, 0, 'the server user cannot change it');
  },
);

t.test('data that the server user cannot reach is kept in /var/lib', onlyAsRoot, async (t) => {
  const dir = await createTemporaryDir(t);
  await chmod(dir, 0o700);
  const dataDir = join(dir, 'data');
  const pathDigest = createHash('sha256').update(dataDir).digest('hex').slice(0, 16);
  const substituteDir = join('/var/lib/heirloom', pathDigest);
  t.teardown(async () => {
    await rm(substituteDir, { recursive: true });
    await rmdir('/var/lib/heirloom').catch(() => {});
  });
  const notices: string[] = [];
  const server = await start(t, dataDir, { notices });
  t.equal(notices.length, 1);
  t.match(notices[0], /^The embedded database is in [^\n]*, because user \w+ cannot reach [^\n]*$/);
  t.match(notices[0], substituteDir);
  await query(server, 'create table kept as select 42 as answer');
  t.equal(await server.stopIfIdle(), 'stopped');
  t.strictSame(await readdir(dir), []);
  t.equal((await stat(dir)).mode & 0o777, 0o700);

  await chmod(dir, 0o755);
  const again = await start(t, dataDir, { notices });
  t.strictSame(await query(again, 'select answer from kept'), [{ answer: 42 }]);
  t.match(notices[1], /because it was created there/);
});

t.test(
  'a database whose directory was closed is not replaced by a new one',
  onlyAsRoot,
  async (t) => {
    const dir = await createTemporaryDir(t);
    const dataDir = join(dir, 'data');
    await (await start(t, dataDir)).stopIfIdle();
    await chmod(dir, 0o700);
    await t.rejects(start(t, dataDir), { message: /belongs to user \w+, who cannot reach it/ });
  },
);

t.test('a strict umask of root does not lock the server user out', onlyAsRoot, async (t) => {
  const dir = await createTemporaryDir(t);
  const umask = process.umask(0o077);
  t.teardown(() => process.umask(umask));
  const notices: string[] = [];
  const server = await start(t, join(dir, 'missing', 'data'), { notices });
  t.strictSame(await query(server, 'select 1 as one'), [{ one: 1 }]);
  t.strictSame(notices, []);
});

t.test('an ordinary user beside the server of another is told at once', onlyAsRoot, async (t) => {
  const dataDir = join(await createTemporaryDir(t), 'data');
  await start(t, dataDir);
  const { error } = await firstLine(startProcess(t, dataDir, [], nobody));
  t.match(error, /^StartUpError: The embedded PostgreSQL cannot use its files: EACCES[^\n]*$/);
});

t.test(
  'an ordinary user owns all files, and root leaves them to that user',
  onlyAsRoot,
  async (t) => {
    const dir = await createTemporaryDir(t);
    await chown(dir, nobody.uid, nobody.gid);
    const dataDir = join(dir, 'data');
    const child = startProcess(t, dataDir, [], nobody);
    const { port } = await firstLine(child);
    t.equal((await stat(dataDir)).mode & 0o777, 0o700);
    const asRoot = await start(t, dataDir);
    t.equal(asRoot.port, port, 'root uses the running server');
    await kill(child);
    t.equal(await asRoot.stopIfIdle(), 'stopped');
    await (await start(t, dataDir)).stopIfIdle();
    for (const path of ['', 'cluster', 'password', 'server.log', 'cluster/PG_VERSION']) {
      t.equal((await stat(inServerDir(dataDir, path))).uid, nobody.uid, path);
    }
  },
);
