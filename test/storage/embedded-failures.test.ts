/** What a first start of the embedded PostgreSQL says when the machine does not let it. */
import { chmod, rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { StartUpError } from '../../src/start-up-error.ts';
import { clusterIn, createCluster } from '../../src/storage/embedded-cluster.ts';
import { runProgram } from '../../src/storage/embedded-place.ts';
import { startEmbeddedPostgres } from '../../src/storage/embedded-postgres.ts';
import { CHECKOUT, isPostgresRunning, run, temporaryDirectory } from '../support/process.ts';

t.test('an initdb that fails is explained by its first complaint', async (t) => {
  const dir = temporaryDirectory(t);
  // As PostgreSQL's own speaks on a full disk.
  const initdb = `#!/bin/sh
    echo 'running bootstrap script ... '
    echo '2026-01-01 00:00:00.000 UTC [7] FATAL:  could not extend file "base/1/1255": No space left on device' >&2
    echo '2026-01-01 00:00:00.000 UTC [7] HINT:  Check free disk space.' >&2
    echo '2026-01-01 00:00:00.000 UTC [7] PANIC:  cannot abort transaction 1, it was already committed' >&2
    echo 'child process was terminated by signal 6: Aborted' >&2
    exit 1`;
  await writeFile(join(dir, 'initdb'), initdb, { mode: 0o755 });
  const cluster = clusterIn({ baseDir: dir, user: undefined });
  const error = await createCluster(cluster, dir, {}).catch((thrown) => thrown);
  t.type(error, StartUpError);
  t.equal(
    error.message,
    `PostgreSQL's initdb failed in ${dir}: ` +
      'FATAL:  could not extend file "base/1/1255": No space left on device',
  );
});

t.test('what stands in the way of a directory is named, even if it looks missing', async (t) => {
  const dataDir = join(temporaryDirectory(t), 'data');
  await symlink('nowhere', dataDir);
  const error = await startEmbeddedPostgres({ dataDir, notice: () => {} }).catch(
    (thrown) => thrown,
  );
  t.type(error, StartUpError);
  t.match(error.message, /^The embedded PostgreSQL cannot use its files: EEXIST[^\n]*data'$/);
});

t.test(
  'a directory in /proc, where nothing can be created, is named at once',
  { skip: process.platform !== 'linux' && 'there is no /proc' },
  async (t) => {
    const dataDir = '/proc/heirloom/data';
    const error = await startEmbeddedPostgres({ dataDir, notice: () => {} }).catch(
      (thrown) => thrown,
    );
    t.type(error, StartUpError);
    t.match(error.message, /^The embedded PostgreSQL cannot use its files: ENOENT[^\n]*heirloom'$/);
  },
);

t.test('a start that cannot connect leaves no PostgreSQL behind', async (t) => {
  const dataDir = temporaryDirectory(t);
  const options = { dataDir, notice: () => {}, settings: { fsync: 'off' } };
  const server = await startEmbeddedPostgres(options);
  await server.stopIfIdle();
  const passwordPath = join(dataDir, 'postgresql-18/password');
  const spoiled: readonly (readonly [string | undefined, RegExp])[] = [
    ['not-the-password', /^PostgreSQL refuses the password in [^\n]*$/],
    ['', /password is not the password file that was written there\.$/],
    [undefined, /cannot use its files: ENOENT[^\n]*password'$/],
  ];
  for (const [password, reason] of spoiled) {
    if (password === undefined) await rm(passwordPath);
    else await writeFile(passwordPath, password);
    await t.rejects(startEmbeddedPostgres(options), { name: 'StartUpError', message: reason });
    t.notOk(isPostgresRunning(dataDir), `${reason}`);
  }
});

t.test('a copy of a running database is not taken for it', async (t) => {
  const [dataDir, copy] = [temporaryDirectory(t), temporaryDirectory(t)];
  const settings = { fsync: 'off' };
  const server = await startEmbeddedPostgres({ dataDir, notice: () => {}, settings });
  await run('cp', ['-a', `${dataDir}/.`, copy]);
  await t.rejects(startEmbeddedPostgres({ dataDir: copy, notice: () => {}, settings }), {
    name: 'StartUpError',
    message:
      /^The database in [^\n]* is a copy of [^\n]*, made while PostgreSQL was running there\./,
  });
  t.ok(isPostgresRunning(dataDir));
  t.equal(await server.stopIfIdle(), 'stopped');
  const own = await startEmbeddedPostgres({ dataDir: copy, notice: () => {}, settings });
  t.ok(isPostgresRunning(copy));
  await own.stopIfIdle();
});

t.test('a path that initdb would give to a shell is named', async (t) => {
  const dir = temporaryDirectory(t);
  const cluster = clusterIn({ baseDir: dir, user: undefined });
  for (const character of ['"', '$', '`', '\\']) {
    const error = await createCluster(cluster, join(dir, `a${character}b`), {}).catch(
      (thrown) => thrown,
    );
    t.type(error, StartUpError);
    t.match(
      error.message,
      /^PostgreSQL's initdb cannot be run in [^\n]*because a shell reads its path\. Move /,
    );
  }
});

t.test('a user whom the kernel refuses at once is told of like any other', async (t) => {
  // No process can be this user, as none can be `nobody` in a namespace that has mapped only root.
  const nowhere = { name: 'nowhere', uid: 0xffffffff, gid: 0xffffffff };
  const { succeeded, output } = await runProgram('/bin/sh', ['-c', ':'], nowhere);
  t.notOk(succeeded);
  t.match(output, /^spawn E/);
});

t.test(
  'a user without an account learns what initdb misses',
  { skip: process.getuid?.() !== 0 && 'needs root' },
  async (t) => {
    const dataDir = temporaryDirectory(t);
    await chmod(dataDir, 0o777);
    const fixture = join(CHECKOUT, 'test/fixtures/embedded-postgres-process.ts');
    const become = 'process.setgroups([]); process.setgid(54321); process.setuid(54321);';
    const { stdout } = await run(process.execPath, [
      '--import',
      `data:text/javascript,${encodeURIComponent(become)}`,
      fixture,
      dataDir,
    ]);
    t.match(
      JSON.parse(stdout).error,
      /^StartUpError: PostgreSQL's initdb needs an account, and user 54321 has none\. Add one to \/etc\/passwd/,
    );
  },
);
