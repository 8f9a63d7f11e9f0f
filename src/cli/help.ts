/** What the commands are, for people at a terminal. */
import type { Command } from './command.ts';

export type CommandDescription = Pick<Command, 'name' | 'usage' | 'summary'>;

const COLUMNS = 80;
const HANGING_INDENT = ' '.repeat(10);

/** An option with its value, in brackets or not, or any other word: what a line is not broken within. */
const unbreakable = /\[[^\]]+\]\S*|--\S+ [^\s[|-]\S*|\S+/g;

/**
 * The commands that words are about: `client create` and `client create --id web` are about one, `client`
 * about all that begin with it, and words that name none are about all there are.
 */
export function commandsAbout<Described extends CommandDescription>(
  words: readonly string[],
  commands: readonly Described[],
): readonly Described[] {
  const asked = `${words.filter((word) => word !== 'help' && !word.startsWith('-')).join(' ')} `;
  const about = commands.filter(
    ({ name }) => asked.startsWith(`${name} `) || `${name} `.startsWith(asked),
  );
  return about.length === 0 ? commands : about;
}

/** The text of `--help`, in lines that a terminal need not break. */
export const helpText = (commands: readonly CommandDescription[]): string =>
  [
    'Usage: heirloom COMMAND [--json] [--help]',
    '',
    ...commands.flatMap(({ name, usage, summary }) => [
      ...broken(`  ${name}`, usage),
      `      ${summary}`,
    ]),
    '',
    'Lifetimes are in seconds. Every command works beside a running server.',
  ].join('\n');

function broken(first: string, usage: string): string[] {
  const lines = [first];
  for (const words of usage.match(unbreakable) ?? []) {
    const longer = `${lines.at(-1)} ${words}`;
    if (longer.length <= COLUMNS) lines.splice(-1, 1, longer);
    else lines.push(HANGING_INDENT + words);
  }
  return lines;
}
