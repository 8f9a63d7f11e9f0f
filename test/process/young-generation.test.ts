/** A server's young objects are allocated young, whatever V8's samples say. */
import t from 'tap';
import { createTestDatabase } from '../support/database.ts';
import { LAUNCHER, run, serve, until } from '../support/process.ts';

/** All that it allocates outlives every collection, which V8 takes for a reason; it says so, if it does. */
const allocate = `{
  const kept = [];
  const place = () => ({ list: [1, 2, 3] });
  for (let turn = 0; turn < 200_000; turn++) kept.push(place());
  process.stdout.write('allocated ' + kept.length + '\\n');
}`;
const TRACE = '--trace-pretenuring-statistics';
const decision = /pretenuring: AllocationSite/;

t.test('V8 decides to allocate in the old generation when it is let', async (t) => {
  const { stdout } = await run(process.execPath, [TRACE, '--eval', allocate]);
  t.match(stdout, decision);
});

t.test('a server does not let it', async (t) => {
  const { url: databaseUrl } = await createTestDatabase(t);
  // Compiled anew each time: V8 decides about a place in the code once.
  const later = `import { runInThisContext } from 'node:vm'; let turn = 0;
    setInterval(() => runInThisContext(${JSON.stringify(allocate)} + '//' + turn++), 50).unref();`;
  const { output } = await serve(t, { env: { DATABASE_URL: databaseUrl } }, [
    process.execPath,
    TRACE,
    '--import',
    `data:text/javascript,${encodeURIComponent(later)}`,
    LAUNCHER,
    'serve',
  ]);
  const sinceReady = () => output.stdout.slice(output.stdout.indexOf('listening on'));
  await until(() => sinceReady().split('allocated').length > 10);
  t.notMatch(sinceReady(), decision);
  t.notMatch(output.stderr, /unrecognized flag/);
});
