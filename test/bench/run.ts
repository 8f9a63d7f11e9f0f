/**
 * The benchmark: `npm run bench`, or `node test/bench/run.ts --help`.
 *
 * Starts a PostgreSQL of its own, a database for each server on it, the servers and a load generator;
 * measures them in turn, round by round; writes a table, `results.json` and two charts.
 */
import { mkdir, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { type Arena, type CleanUp, openArena } from './arena.ts';
import { growthChart, resultsChart } from './chart.ts';
import { measure } from './measure.ts';
import { type Options, parseOptions, usage } from './options.ts';
import { type Contestant, labels, type Measured, type Row, type RowName, rows } from './plan.ts';
import { createReport, formatTable, formatVerdicts } from './report.ts';

const startedAt = performance.now();
const cleanUp: CleanUp = [];
let isInterrupted = false;
const stopOnSignal = async (): Promise<void> => {
  isInterrupted = true;
  await undo();
  process.exit(130);
};
// Not `once`: with no listener left, the lock file's own handler would end the process at once.
process.on('SIGINT', stopOnSignal);
process.on('SIGTERM', stopOnSignal);

async function run(options: Options): Promise<void> {
  const arena = await openArena(options, cleanUp, say);
  await warmUp(arena, options);
  const rounds = new Map<RowName, Map<Contestant, Measured[]>>();
  const record = async (row: Row, round: number): Promise<void> => {
    const present = row.contestants.filter((each) => isPresent(arena, each));
    for (const contestant of inOrderOf(round, present)) {
      const measured = await measure(arena, row, contestant, { ...options, round });
      if (measured === undefined) {
        say(`${row.title}, ${labels[contestant]}`, 'nothing left to ask');
        continue;
      }
      const ofRow = rounds.get(row.name) ?? new Map<Contestant, Measured[]>();
      rounds.set(row.name, ofRow);
      ofRow.set(contestant, [...(ofRow.get(contestant) ?? []), measured]);
      say(`${row.title}, ${labels[contestant]}`, describe(measured));
    }
  };
  for (let round = 0; round < options.rounds; round++) {
    say(`round ${round + 1} of ${options.rounds}`, '');
    for (const row of rows) if (!row.isLast) await record(row, round);
  }
  for (const row of rows) if (row.isLast) await record(row, options.rounds);

  const report = createReport(options, arena, rounds);
  process.stdout.write(`\n${formatTable(report)}\n\n${formatVerdicts(report)}\n\n`);
  await mkdir(options.outputDirectory, { recursive: true });
  const write = (name: string, text: string) =>
    writeFile(join(options.outputDirectory, name), text);
  await write('results.json', `${JSON.stringify(report, undefined, 2)}\n`);
  await write('results.svg', resultsChart(report));
  await write('growth.svg', growthChart(report));
  say('done', `results.json, results.svg and growth.svg in ${options.outputDirectory}`);
}

/** The places go round, so that nobody comes first or last more often than others; each second round backwards. */
function inOrderOf<Item>(round: number, items: readonly Item[]): Item[] {
  const first = round % items.length;
  const rotated = [...items.slice(first), ...items.slice(0, first)];
  return round % 2 === 0 ? rotated : rotated.toReversed();
}

const isPresent = ({ servers }: Arena, contestant: Contestant): boolean =>
  contestant === 'argon2-alone' || servers.has(contestant);

/** Until then throughput still rises from one second to the next. */
const WARM_UP_SECONDS = 8;

/** Programs that were just started are compiled while they run; nobody's first seconds count. */
async function warmUp(arena: Arena, options: Options): Promise<void> {
  for (const name of ['introspect-active', 'refresh', 'introspect-lone'] as const) {
    const row = rows.find((each) => each.name === name) as Row;
    for (const contestant of row.contestants) {
      if (!arena.servers.has(contestant)) continue;
      say('warm up', `${row.title}, ${labels[contestant]}`);
      await measure(arena, row, contestant, {
        round: options.rounds + 1,
        warmUpSeconds: 0,
        seconds: options.isQuick ? options.seconds : WARM_UP_SECONDS,
      });
    }
  }
}

const describe = ({ perSecond, p50Milliseconds, p99Milliseconds }: Measured): string =>
  `${Math.round(perSecond).toLocaleString('en')}/s` +
  (p50Milliseconds === undefined
    ? ''
    : `, p50 ${p50Milliseconds.toFixed(2)} ms, p99 ${p99Milliseconds?.toFixed(2)} ms`);

function say(subject: string, text: string): void {
  const seconds = Math.round((performance.now() - startedAt) / 1000);
  process.stderr.write(`${String(seconds).padStart(4)} s  ${subject}${text && `: ${text}`}\n`);
}

/** Stops what was started, the newest first; what fails to stop does not keep the rest alive. */
async function undo(): Promise<void> {
  for (const step of cleanUp.splice(0)) {
    await step().catch((error: unknown) => process.stderr.write(`${String(error)}\n`));
  }
}

/** Undefined after wrong usage or a request for help, which is then answered. */
function readOptions(): Options | undefined {
  try {
    const options = parseOptions(process.argv.slice(2));
    if (options !== 'help') return options;
    process.stdout.write(usage);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${usage}`);
    process.exitCode = 2;
  }
  return undefined;
}

const options = readOptions();
if (options !== undefined) {
  try {
    await run(options);
  } catch (error) {
    // What was stopped on the way down complains, too.
    if (!isInterrupted) process.stderr.write(`${(error as Error).stack}\n`);
    process.exitCode = 1;
  } finally {
    await undo();
  }
}
