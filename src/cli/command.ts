/** What a command is: its words, its options, and one function from arguments to a result. */
import type { ParseArgsConfig } from 'node:util';
import type { Dependencies } from '../dependencies.ts';
import type { AdministrativeSubject } from '../storage/administration-log.ts';

/** Wrong usage, exit code 2; everything else that fails exits 1. */
export class UsageError extends Error {
  override readonly name = 'UsageError';
}

/** What a command has to say, for people and as one JSON document with wire names. */
export interface CommandResult {
  readonly text: string;
  readonly json: unknown;
  /** What to do where the output is lost and cannot be had again. */
  readonly remedy?: string;
  /** Set by commands that change something: what goes into the trail of changes. */
  readonly changed?: AdministrativeSubject;
}

export interface CommandArguments {
  readonly positionals: readonly string[];
  readonly options: Readonly<
    Record<string, string | boolean | readonly (string | boolean)[] | undefined>
  >;
  /** Reads all of standard input, once. */
  readonly readStdin: () => Promise<string>;
}

export interface Command {
  /** As typed, e.g. `client create`. */
  readonly name: string;
  /** What comes behind the name, for the help. */
  readonly usage: string;
  readonly summary: string;
  readonly options: NonNullable<ParseArgsConfig['options']>;
  readonly positionals: { readonly minimum: number; readonly maximum: number };
  /** Applies pending migrations to the database first. */
  readonly isMigrating?: boolean;
  run(given: CommandArguments, dependencies: Dependencies): Promise<CommandResult>;
}

/** A string option, if it was given. */
export function stringOption({ options }: CommandArguments, name: string): string | undefined {
  const value = options[name];
  return typeof value === 'string' ? value : undefined;
}

/** The different values of an option that may be repeated; undefined if it was not given at all. */
export function listOption({ options }: CommandArguments, name: string): string[] | undefined {
  const value = options[name];
  return Array.isArray(value) ? [...new Set(value.map(String))] : undefined;
}

/**
 * A whole number of seconds; `default` gives null, which stands for the server's default.
 *
 * @throws UsageError
 */
export function secondsOption(
  given: CommandArguments,
  name: string,
  { minimum = 1, maximum = 315_360_000 } = {},
): number | null | undefined {
  const value = stringOption(given, name);
  if (value === undefined) return undefined;
  if (value === 'default') return null;
  const seconds = /^\d{1,9}$/.test(value) ? Number(value) : Number.NaN;
  if (seconds >= minimum && seconds <= maximum) return seconds;
  throw new UsageError(`--${name} takes a whole number of seconds from ${minimum} to ${maximum}.`);
}

/** @throws UsageError unless the value is one of the choices */
export function choiceOption<Choice extends string>(
  given: CommandArguments,
  name: string,
  choices: readonly Choice[],
): Choice | undefined {
  const value = stringOption(given, name);
  if (value === undefined) return undefined;
  const choice = choices.find((each) => each === value);
  if (choice !== undefined) return choice;
  throw new UsageError(`--${name} takes one of ${choices.join(', ')}.`);
}

/**
 * Aligned columns with a heading, or a sentence when there is nothing to show.
 *
 * @param columns all, if left out
 */
export function table<Row extends Readonly<Record<string, unknown>>>(
  rows: readonly Row[],
  empty: string,
  columns: readonly (keyof Row & string)[] = Object.keys(rows[0] ?? {}),
): string {
  if (rows.length === 0) return empty;
  const cells = [columns, ...rows.map((row) => columns.map((column) => cell(row[column])))];
  const widths = columns.map((_, index) =>
    Math.max(...cells.map((row) => row[index]?.length ?? 0)),
  );
  const line = (row: readonly string[]) =>
    row
      .map((text, index) => text.padEnd(widths[index] ?? 0))
      .join('  ')
      .trimEnd();
  return cells.map(line).join('\n');
}

function cell(value: unknown): string {
  if (value === null || value === undefined) return '-';
  if (value instanceof Date) return value.toISOString();
  return Array.isArray(value) ? value.join(' ') || '-' : String(value) || '-';
}
