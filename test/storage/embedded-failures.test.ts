/** What a first start of the embedded PostgreSQL says when the machine does not let it. */
import { rm, symlink, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import t from 'tap';
import { StartUpError } from '../../src/start-up-error.ts';
import { clusterIn, createCluster } from '../../src/storage/embedded-cluster.ts';
import { startEmbeddedPostgres } from '../../src/storage/embedded-postgres.ts';
import { isPostgresRunning, temporaryDirectory } from '../support/process.ts';

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
