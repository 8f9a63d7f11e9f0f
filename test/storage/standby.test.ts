/** A switchover: the address of the database leads to a standby for a while, and to the new primary then. */
import { execFileSync } from 'node:child_process';
import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import pg from 'pg';
import t, { type Test } from 'tap';
import { startEmbeddedPostgres } from '../../src/storage/embedded-postgres.ts';
import { migrate } from '../../src/storage/migrate.ts';
import { createCast, introspect, login } from '../support/fixtures.ts';
import { administer, withoutDurability } from '../support/postgres.ts';
import { temporaryDirectory } from '../support/process.ts';
import { startProxy } from '../support/proxy.ts';
import { startServer } from '../support/server.ts';

/** Starts a server, and a copy of it that takes no writes and waits to be promoted. */
async function startPair(t: Test): Promise<{ primaryUrl: string; standbyUrl: string }> {
  const settings = withoutDurability;
  const start = (dataDir: string) => startEmbeddedPostgres({ dataDir, notice: () => {}, settings });
  const [first, second] = [temporaryDirectory(t), temporaryDirectory(t)];
  const original = await start(first);
  await migrate(original.url('heirloom'));
  await original.stopIfIdle();
  execFileSync('cp', ['-a', `${first}/.`, second]);
  writeFileSync(join(second, 'postgresql-18', 'cluster', 'standby.signal'), '');
  const [primary, standby] = [await start(first), await start(second)];
  t.teardown(() => Promise.all([primary.stopIfIdle(), standby.stopIfIdle()]));
  return { primaryUrl: primary.url('heirloom'), standbyUrl: standby.url('heirloom') };
}

const endConnections = (url: string) =>
  administer(
    url,
    `select pg_terminate_backend(pid, 5000) from pg_stat_activity
     where application_name = 'heirloom' and pid <> pg_backend_pid()`,
  );

t.test(
  'whoever met a standby is served by the primary as soon as that has the address',
  async (t) => {
    const { primaryUrl, standbyUrl } = await startPair(t);
    const { url, redirect } = await startProxy(t, primaryUrl);
    const inspect = new pg.Pool({ connectionString: primaryUrl, max: 1 });
    t.teardown(() => inspect.end());
    const server = await startServer(t, { database: { url, inspect } });
    const { c1 } = await createCast(server);
    const { access_token } = (await login(server, c1)).body;
    const ask = () =>
      Promise.all(Array.from({ length: 20 }, () => introspect(server, c1, access_token)));

    redirect(standbyUrl);
    await endConnections(primaryUrl);
    for (const { status, headers } of await ask()) {
      t.equal(status, 503, 'a standby is not believed');
      t.match(headers.get('retry-after'), /^[1-9]\d*$/);
    }
    t.equal((await login(server, c1)).status, 503);
    const lines = server.logs.map((line) => JSON.parse(line)).filter(({ level }) => level >= 50);
    t.match(lines.at(-1), { detail: 'database is a standby' });

    redirect(primaryUrl);
    for (const { status, body } of await ask()) {
      t.equal(status, 200, 'no connection to the standby is kept');
      t.equal(body.active, true);
    }
    t.equal((await login(server, c1)).status, 200);
  },
);

t.test('a server does not start on a standby, and says why', async (t) => {
  const { standbyUrl } = await startPair(t);
  await t.rejects(startServer(t, { database: { url: standbyUrl, inspect: new pg.Pool() } }), {
    name: 'StartUpError',
    message: /^Cannot use the database at .*: database is a standby$/,
  });
});
