/**
 * What limits cost a resource server: `npm run bench:limits`. Two servers on one database, one with
 * `RATE_LIMIT=off`, are asked in turn; prints the introspections a second of each round and their ratio.
 */
import { chmod, mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startEmbeddedPostgres } from '../../src/storage/embedded-postgres.ts';
import type { LoadAnswer, LoadOrder } from './generator.ts';
import type { LoadResult } from './load.ts';
import { median } from './plan.ts';
import { startHelper, startServer } from './processes.ts';
import { seedHeirloom } from './seed-heirloom.ts';

const FAMILIES = 100_000;
const ROUNDS = 9;
const SECONDS = 3;

const directory = await mkdtemp(join(tmpdir(), 'heirloom-limits-'));
await chmod(directory, 0o755);
const postgres = await startEmbeddedPostgres({ dataDir: directory, notice: console.error });
try {
  const url = postgres.url('bench_limits');
  const seeds = { families: FAMILIES, passwordHash: 'nobody logs in' };
  await seedHeirloom(postgres.url('postgres'), url, seeds, (text) => console.error(text));
  const start = (RATE_LIMIT: 'on' | 'off') =>
    startServer('../../src/main.ts', {
      DATABASE_URL: url,
      PORT: '0',
      LOG_LEVEL: 'error',
      RATE_LIMIT,
    });
  const servers = { on: await start('on'), off: await start('off') };
  const generator = startHelper('generator.ts');
  const stop = () => Promise.all([generator.stop(), servers.on.stop(), servers.off.stop()]);
  const perSecond = { on: [] as number[], off: [] as number[] };
  for (let round = 0; round <= ROUNDS; round++) {
    // Which of the two comes first changes: a machine gets warmer.
    for (const which of round % 2 ? (['on', 'off'] as const) : (['off', 'on'] as const)) {
      const answer = await generator.ask<LoadAnswer>({
        server: which,
        dialect: 'heirloom',
        families: FAMILIES,
        port: servers[which].port,
        loads: [{ scenario: 'introspect-active', connections: 64 }],
        round,
        warmUpSeconds: 1,
        seconds: SECONDS,
      } satisfies LoadOrder);
      if ('failure' in answer) {
        await stop();
        throw new Error(answer.failure);
      }
      const { answers, seconds } = answer.results[0] as LoadResult;
      // The first round warms up.
      if (round > 0) perSecond[which].push(Math.round(answers / seconds));
    }
  }
  await stop();
  const ratios = perSecond.on.map((on, round) => on / (perSecond.off[round] as number));
  console.log('introspections a second, limits on: ', perSecond.on.join(' '));
  console.log('introspections a second, limits off:', perSecond.off.join(' '));
  console.log('on / off, round by round:', ratios.map((ratio) => ratio.toFixed(2)).join(' '));
  const medians = median(perSecond.on) / median(perSecond.off);
  console.log(
    `median of ratios ${median(ratios).toFixed(3)}, ratio of medians ${medians.toFixed(3)}`,
  );
} finally {
  await postgres.stopIfIdle();
  await rm(directory, { recursive: true, force: true });
}
