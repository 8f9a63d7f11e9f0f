/** The command line of the benchmark. */
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';

export interface Options {
  readonly isQuick: boolean;
  /** In the database of every server. */
  readonly families: number;
  /** In Heirloom's second database, to see how cost grows. */
  readonly fewFamilies: number;
  /** In Heirloom's third database, if there is one. */
  readonly manyFamilies: number | undefined;
  readonly rounds: number;
  readonly seconds: number;
  readonly warmUpSeconds: number;
  /** Where results.json and the charts go. */
  readonly outputDirectory: string;
}

export const usage = `Usage: node test/bench/run.ts [options]

  --quick           two minutes to see that all works: few families, one round, figures not kept
  --families N      families in the database of every server (1000000)
  --ten-million     Heirloom with ten million families too; takes about 10 GB and 15 minutes more
  --rounds N        rounds over everything that is measured (5)
  --seconds N       length of one measurement (3)
  --output DIR      where results.json and the charts go (test/bench; --quick: a temporary directory)
`;

/** @throws TypeError with one line for wrong usage */
export function parseOptions(words: readonly string[]): Options | 'help' {
  const { values } = parseArgs({
    args: [...words],
    options: {
      help: { type: 'boolean', default: false },
      quick: { type: 'boolean', default: false },
      families: { type: 'string' },
      'ten-million': { type: 'boolean', default: false },
      rounds: { type: 'string' },
      seconds: { type: 'string' },
      output: { type: 'string' },
    },
  });
  if (values.help) return 'help';
  const isQuick = values.quick;
  const families = parseNumber('families', values.families, isQuick ? 10_000 : 1_000_000);
  // A quarter of them is refreshed, one over each connection at a time.
  if (families < 2000) throw new TypeError('--families must be at least 2000');
  return {
    isQuick,
    families,
    fewFamilies: Math.min(families, isQuick ? 2_000 : 10_000),
    manyFamilies: values['ten-million'] ? 10_000_000 : undefined,
    rounds: parseNumber('rounds', values.rounds, isQuick ? 1 : 5),
    seconds: parseNumber('seconds', values.seconds, isQuick ? 2 : 3),
    // Who had to wait for others to be measured begins with cold memory and forgotten code.
    warmUpSeconds: isQuick ? 0.5 : 3,
    // Figures of a quick run mean nothing and must not replace those that the README shows.
    outputDirectory:
      values.output ?? (isQuick ? join(tmpdir(), 'heirloom-bench-quick') : import.meta.dirname),
  };
}

function parseNumber(name: string, text: string | undefined, fallback: number): number {
  if (text === undefined) return fallback;
  const number = Number(text);
  if (Number.isInteger(number) && number >= 1) return number;
  throw new TypeError(`--${name} must be a whole number, not ${JSON.stringify(text)}`);
}
