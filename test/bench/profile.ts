/**
 * Where Heirloom's time goes: `node test/bench/profile.ts [scenario] [seconds]`, the scenario as in
 * `workloads.ts` (introspect-active). Prints the self time of the server's process by module and by
 * function, as microseconds per request and as shares of the time that is not idle.
 */
import { chmod, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { startEmbeddedPostgres } from '../../src/storage/embedded-postgres.ts';
import type { LoadAnswer, LoadOrder } from './generator.ts';
import { SATURATING_CONNECTIONS } from './plan.ts';
import { startHelper, startServer } from './processes.ts';
import { seedHeirloom } from './seed-heirloom.ts';
import type { Scenario } from './workloads.ts';

const FAMILIES = 100_000;

interface ProfileNode {
  readonly id: number;
  readonly callFrame: {
    readonly functionName: string;
    readonly url: string;
    readonly lineNumber: number;
  };
}

interface Profile {
  /** Microseconds on the same monotonic clock as `process.hrtime`. */
  readonly startTime: number;
  readonly nodes: readonly ProfileNode[];
  readonly samples: readonly number[];
  readonly timeDeltas: readonly number[];
}

const [scenario = 'introspect-active', seconds = '8'] = process.argv.slice(2);
const directory = await mkdtemp(join(tmpdir(), 'heirloom-profile-'));
await chmod(directory, 0o755);
try {
  const loaded = await load(scenario as Scenario, Number(seconds));
  const name = (await readdir(directory)).find((each) => each.endsWith('.cpuprofile')) as string;
  summarise(JSON.parse(await readFile(join(directory, name), 'utf8')), loaded);
} finally {
  await rm(directory, { recursive: true, force: true });
}

interface Loaded {
  readonly answers: number;
  /** What came before is start-up. */
  readonly fromMicroseconds: number;
}

async function load(name: Scenario, measuredSeconds: number): Promise<Loaded> {
  const postgres = await startEmbeddedPostgres({ dataDir: directory, notice: console.error });
  try {
    const url = postgres.url('bench_profile');
    const seeds = { families: FAMILIES, passwordHash: 'nobody logs in' };
    await seedHeirloom(postgres.url('postgres'), url, seeds, (text) => console.error(text));
    const settings = { DATABASE_URL: url, PORT: '0', RATE_LIMIT: 'off', LOG_LEVEL: 'error' };
    const profiling = ['--cpu-prof', `--cpu-prof-dir=${directory}`, '--cpu-prof-interval=500'];
    const server = await startServer('../../src/main.ts', settings, profiling);
    const generator = startHelper('generator.ts');
    const run = (seconds: number, round: number): Promise<LoadAnswer> =>
      generator.ask<LoadAnswer>({
        server: 'profiled',
        dialect: 'heirloom',
        families: FAMILIES,
        port: server.port,
        loads: [{ scenario: name, connections: SATURATING_CONNECTIONS }],
        round,
        warmUpSeconds: 0,
        seconds,
      } satisfies LoadOrder);
    await run(3, 0);
    const fromMicroseconds = Number(process.hrtime.bigint() / 1000n);
    const answer = await run(measuredSeconds, 1);
    await generator.stop();
    await server.stop();
    if ('failure' in answer) throw new Error(answer.failure);
    return { answers: answer.results[0]?.allAnswers ?? 0, fromMicroseconds };
  } finally {
    await postgres.stopIfIdle();
  }
}

function summarise(
  { startTime, nodes, samples, timeDeltas }: Profile,
  { answers, fromMicroseconds }: Loaded,
): void {
  const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]));
  const ofModules = new Map<string, number>();
  const ofFunctions = new Map<string, number>();
  let busy = 0;
  let now = startTime;
  samples.forEach((id, index) => {
    const frame = frames.get(id);
    const time = timeDeltas[index] ?? 0;
    now += time;
    if (now < fromMicroseconds || frame === undefined || frame.functionName === '(idle)') return;
    busy += time;
    const module = moduleOf(frame.url, frame.functionName);
    const place = frame.url === '' ? '' : `${placeOf(frame.url)}:${frame.lineNumber + 1}`;
    const name = `${frame.functionName || '(anonymous)'} ${place}`;
    ofModules.set(module, (ofModules.get(module) ?? 0) + time);
    ofFunctions.set(name, (ofFunctions.get(name) ?? 0) + time);
  });
  console.log(`${answers} requests, ${(busy / answers).toFixed(1)} µs each\n`);
  for (const [times, limit] of [[ofModules, 40] as const, [ofFunctions, 60] as const]) {
    const sorted = [...times].sort(([, one], [, other]) => other - one).slice(0, limit);
    for (const [name, time] of sorted) {
      const share = ((time / busy) * 100).toFixed(1).padStart(5);
      console.log(`${(time / answers).toFixed(2).padStart(8)} µs ${share} %  ${name}`);
    }
    console.log();
  }
}

function placeOf(url: string): string {
  return url.replace(/^.*\/(?=src\/|node_modules\/)/, '');
}

/** A file of ours, a package, or a part of Node. */
function moduleOf(url: string, functionName: string): string {
  if (url === '') return functionName.startsWith('(') ? functionName : 'native';
  const inPackage = /node_modules\/((?:@[^/]+\/)?[^/]+)\/(?!.*node_modules\/)/.exec(url)?.[1];
  return inPackage ?? placeOf(url);
}
