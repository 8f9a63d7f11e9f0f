/** From the rounds to what people read: a table, verdicts, and the document behind `results.json`. */
import { readFileSync } from 'node:fs';
import { availableParallelism, cpus, totalmem } from 'node:os';
import { join } from 'node:path';
import { version } from '../../src/version.ts';
import type { Arena } from './arena.ts';
import type { Options } from './options.ts';
import {
  type Contestant,
  criteria,
  judge,
  labels,
  type Measured,
  median,
  type Rounds,
  type RowName,
  rows,
  type Verdict,
} from './plan.ts';

export interface Report {
  readonly date: string;
  readonly machine: Readonly<Record<string, string | number>>;
  readonly versions: Readonly<Record<string, string>>;
  readonly options: Omit<Options, 'outputDirectory'>;
  readonly rows: readonly ReportRow[];
  readonly verdicts: readonly Verdict[];
}

export interface ReportRow {
  readonly name: RowName;
  readonly title: string;
  readonly entries: readonly ReportEntry[];
}

export interface ReportEntry {
  readonly contestant: Contestant;
  readonly label: string;
  /** In the contestant's database. */
  readonly families: number | undefined;
  readonly median: Measured;
  readonly rounds: readonly Measured[];
}

export function createReport(given: Options, arena: Arena, rounds: Rounds): Report {
  const { outputDirectory: _, ...options } = given;
  return {
    date: new Date().toISOString(),
    machine: {
      processor: cpus()[0]?.model ?? 'unknown',
      cores: availableParallelism(),
      memoryGigabytes: Math.round(totalmem() / 2 ** 30),
      platform: `${process.platform}-${process.arch}`,
    },
    versions: {
      heirloom: version,
      node: process.versions.node,
      postgresql: arena.postgres.version,
      ...peerVersions(),
    },
    options,
    rows: rows.flatMap(({ name, title }): ReportRow[] => {
      const measured = rounds.get(name);
      if (measured === undefined) return [];
      const entries = [...measured].map(([contestant, ofRounds]) => ({
        contestant,
        label: labels[contestant],
        families: arena.servers.get(contestant)?.families,
        median: medianOf(ofRounds),
        rounds: ofRounds,
      }));
      return [{ name, title, entries: entries.sort(inOrderOfLabels) }];
    }),
    verdicts: criteria.flatMap((criterion) => judge(criterion, rounds) ?? []),
  };
}

const peerVersions = (): Record<string, string> =>
  JSON.parse(readFileSync(join(import.meta.dirname, 'package.json'), 'utf8')).dependencies;

const inOrderOfLabels = (one: ReportEntry, other: ReportEntry): number =>
  Object.keys(labels).indexOf(one.contestant) - Object.keys(labels).indexOf(other.contestant);

function medianOf(rounds: readonly Measured[]): Measured {
  const of = (metric: keyof Measured): number | undefined => {
    const values = rounds.flatMap((measured) => measured[metric] ?? []);
    return values.length === 0 ? undefined : median(values);
  };
  return {
    perSecond: of('perSecond') ?? Number.NaN,
    p50Milliseconds: of('p50Milliseconds'),
    p99Milliseconds: of('p99Milliseconds'),
    serverMicroseconds: of('serverMicroseconds'),
    databaseMicroseconds: of('databaseMicroseconds'),
    peakMegabytes: of('peakMegabytes'),
    generatorBusyShare: of('generatorBusyShare'),
  };
}

export const inWords = (families: number): string =>
  families >= 1_000_000 ? `${families / 1_000_000} M families` : `${families / 1000} k families`;

const number = (value: number | undefined, digits = 0): string =>
  value === undefined
    ? '–'
    : value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits });

const columns = [
  'requests/s',
  'p50 ms',
  'p99 ms',
  'CPU µs, server',
  'CPU µs, PostgreSQL',
  'peak MB',
];

/** A table for a terminal; medians over the rounds. */
export function formatTable({ rows: reportRows }: Report): string {
  const lines = [['', '', ...columns]];
  for (const { title, entries } of reportRows) {
    entries.forEach(({ contestant, label, families, median: of }, index) => {
      const isSized = contestant === 'heirloom-small' || contestant === 'heirloom-huge';
      lines.push([
        index === 0 ? title : '',
        isSized && families !== undefined ? `Heirloom, ${inWords(families)}` : label,
        number(of.perSecond),
        number(of.p50Milliseconds, 2),
        number(of.p99Milliseconds, 2),
        number(of.serverMicroseconds),
        number(of.databaseMicroseconds),
        number(of.peakMegabytes),
      ]);
    });
  }
  const widths = (lines[0] ?? []).map((_, column) =>
    Math.max(...lines.map((line) => line[column]?.length ?? 0)),
  );
  return lines
    .map((line) =>
      line
        .map((cell, column) => {
          const width = widths[column] ?? 0;
          return column < 2 ? cell.padEnd(width) : cell.padStart(width);
        })
        .join('  ')
        .trimEnd(),
    )
    .join('\n');
}

/** What had to come out, and what did: ratios within a round, the median round and the range. */
export function formatVerdicts({ verdicts, options }: Report): string {
  const lines = verdicts.map((verdict) => {
    const { text, ratio, lowest, highest, isMet } = verdict;
    const wanted = wantedOf(verdict);
    const mark = wanted === '' ? '      ' : isMet ? 'met   ' : 'MISSED';
    const range = `${lowest.toFixed(2)} to ${highest.toFixed(2)}`;
    return `${mark}  ${ratio.toFixed(2)} (${range}${wanted})  ${text}`;
  });
  if (options.isQuick) lines.unshift('A quick run: these figures mean nothing.');
  return lines.join('\n');
}

/** The limit as a part of a sentence; empty where nothing is asked. */
const wantedOf = ({ atLeast, atMost, aim }: Verdict): string =>
  [
    atLeast === undefined ? '' : `; at least ${atLeast}`,
    atMost === undefined ? '' : `; at most ${atMost}`,
    aim === undefined ? '' : `, aim ${aim}`,
  ].join('');
