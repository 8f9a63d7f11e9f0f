/** One measurement of one contestant. */
import type { Arena, RunningServer } from './arena.ts';
import type { LoadAnswer, LoadOrder } from './generator.ts';
import { type Contestant, dialectOf, type Measured, type Row } from './plan.ts';
import { cpuSeconds, peakMemoryMegabytes, resetPeakMemory, treeCpuSeconds } from './resources.ts';

export interface MeasureOptions {
  readonly round: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
}

/**
 * @returns undefined when there was nothing left to ask, as when all families are revoked
 * @throws Error when an answer was wrong
 */
export async function measure(
  arena: Arena,
  row: Row,
  contestant: Contestant,
  options: MeasureOptions,
): Promise<Measured | undefined> {
  if (contestant === 'argon2-alone') return measureArgon2(arena, options);
  const server = arena.servers.get(contestant);
  if (server === undefined) throw new Error(`${contestant} is not running`);
  const postgresPid = arena.postgres.pid;

  resetPeakMemory(server.pid);
  const serverBefore = cpuSeconds(server.pid);
  const databaseBefore = postgresPid === undefined ? undefined : treeCpuSeconds(postgresPid);
  const answer = await arena.generator.ask<LoadAnswer>(
    orderOf(server, row, contestant, options) satisfies LoadOrder,
  );
  if ('failure' in answer) throw new Error(`${contestant}, ${row.title}: ${answer.failure}`);
  const serverAfter = cpuSeconds(server.pid);
  const databaseAfter = postgresPid === undefined ? undefined : treeCpuSeconds(postgresPid);

  const [timed] = answer.results;
  if (timed === undefined || timed.answers === 0) return undefined;
  // Where two loads ran, what they cost together says nothing about one request.
  const perRequest = (before?: number, after?: number): number | undefined =>
    before === undefined || after === undefined || row.loads.length > 1
      ? undefined
      : ((after - before) * 1e6) / timed.allAnswers;
  return {
    perSecond: timed.answers / timed.seconds,
    p50Milliseconds: timed.p50Milliseconds,
    p99Milliseconds: timed.p99Milliseconds,
    serverMicroseconds: perRequest(serverBefore, serverAfter),
    databaseMicroseconds: perRequest(databaseBefore, databaseAfter),
    peakMegabytes: peakMemoryMegabytes(server.pid),
    generatorBusyShare: answer.busyShare,
  };
}

const orderOf = (
  { port, families, database }: RunningServer,
  { loads }: Row,
  contestant: Contestant,
  { round, seconds, warmUpSeconds }: MeasureOptions,
): LoadOrder => ({
  server: database,
  dialect: dialectOf(contestant),
  families,
  port,
  loads,
  round,
  seconds,
  warmUpSeconds,
});

async function measureArgon2({ argon2 }: Arena, { seconds }: MeasureOptions): Promise<Measured> {
  const before = cpuSeconds(argon2.pid);
  resetPeakMemory(argon2.pid);
  const perSecond = await argon2.ask<number>(seconds);
  const after = cpuSeconds(argon2.pid);
  return {
    perSecond,
    p50Milliseconds: undefined,
    p99Milliseconds: undefined,
    serverMicroseconds:
      before === undefined || after === undefined
        ? undefined
        : ((after - before) * 1e6) / (perSecond * seconds),
    databaseMicroseconds: undefined,
    peakMegabytes: peakMemoryMegabytes(argon2.pid),
    generatorBusyShare: undefined,
  };
}
