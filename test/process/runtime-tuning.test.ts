/** A server stays as fast as V8 and Node can be, whatever its first seconds were like. */
import { join } from 'node:path';
import t from 'tap';
import { createTestDatabase } from '../support/database.ts';
import { CHECKOUT, LAUNCHER, run, serve, until } from '../support/process.ts';

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

/** Prints the least time of a thousand ticks, in nanoseconds each, after collections between ticks. */
const timeTicks = `
  const ticks = () => new Promise((resolve) => {
    let left = 1000;
    const tick = () => (--left === 0 ? resolve() : process.nextTick(tick));
    process.nextTick(tick);
  });
  await ticks();
  // V8 spares the shape of objects in two collections.
  for (let collection = 0; collection < 4; collection++) {
    await new Promise((resolve) => setTimeout(() => resolve(gc()), 10));
  }
  let least = Infinity;
  for (let turn = 0; turn < 500; turn++) {
    const startedAt = performance.now();
    await ticks();
    least = Math.min(least, performance.now() - startedAt);
  }
  console.log(least * 1000);`;

t.test('a tick costs no more after full collections', async (t) => {
  const nanosecondsPerTick = async (preparation: string): Promise<number> => {
    // Without the environment by which coverage is measured, for which V8 compiles differently.
    const { stdout } = await run('env', [
      '-i',
      process.execPath,
      '--expose-gc',
      '--input-type=module',
      '--eval',
      preparation + timeTicks,
    ]);
    return Number(stdout);
  };
  const module = JSON.stringify(join(CHECKOUT, 'src/runtime-tuning.ts'));
  const tuned = await nanosecondsPerTick(`(await import(${module})).tuneRuntime();`);
  const untuned = await nanosecondsPerTick('');
  t.ok(tuned < untuned / 2, `${tuned} ns and ${untuned} ns`);
});
