/** The command line: words to a command, its result to standard output, failures to standard error. */
import type { Readable, Writable } from 'node:stream';
import { text as readText } from 'node:stream/consumers';
import { parseArgs } from 'node:util';
import { type Config, loadConfig } from '../config.ts';
import { createDependencies } from '../dependencies.ts';
import { StartUpError } from '../start-up-error.ts';
import { AdministrationError } from '../storage/administration-error.ts';
import { recordAdministration } from '../storage/administration-log.ts';
import { databaseTroubleOf } from '../storage/database.ts';
import { version } from '../version.ts';
import { clientCommands } from './client-commands.ts';
import { type Command, type CommandArguments, type CommandResult, UsageError } from './command.ts';
import { eventCommands } from './event-commands.ts';
import { type CommandDescription, commandsAbout, helpText } from './help.ts';
import { maintenanceCommands } from './maintenance-commands.ts';
import { sessionCommands } from './session-commands.ts';
import { userCommands } from './user-commands.ts';

export interface CommandLineIo {
  readonly environment: Readonly<Record<string, string | undefined>>;
  readonly stdin: Readable;
  readonly stdout: Writable;
  readonly stderr: Writable;
}

/** Nobody retries a command by itself, and whoever has typed it waits longer than a client does for an answer. */
const patience = {
  acquireTimeoutSeconds: 10,
  statementTimeoutSeconds: 15,
  lockTimeoutSeconds: 10,
} satisfies Partial<Config>;

const commands = [
  ...maintenanceCommands,
  ...clientCommands,
  ...userCommands,
  ...sessionCommands,
  ...eventCommands,
];

const descriptions: readonly CommandDescription[] = [
  { name: 'serve', usage: '', summary: 'Answer requests (what npm start does)' },
  { name: 'openapi', usage: '', summary: 'Print the OpenAPI document' },
  ...commands,
];

/**
 * Runs one command.
 *
 * With `--json` standard output carries one JSON document and nothing else, and a failure is one
 * JSON object on standard error.
 *
 * @returns the exit code: 0, 1 for a failure, 2 for wrong usage
 */
export async function runCommandLine(words: readonly string[], io: CommandLineIo): Promise<number> {
  const isJson = words.includes('--json');
  const complain = (message: string) =>
    write(io.stderr, isJson ? JSON.stringify({ error: message }) : message);
  try {
    const result = await dispatch(words, io);
    const failure = await write(io.stdout, isJson ? JSON.stringify(result.json) : result.text);
    if (failure === undefined) return 0;
    // A reader that has gone wants no more, not even a complaint.
    if (failure.code !== 'EPIPE') await complain(unwritten(result, failure));
    return 1;
  } catch (error) {
    await complain(messageOf(error));
    return error instanceof UsageError ? 2 : 1;
  }
}

/** DEL, the controls of eight bits, which terminals obey as they do ESC, and those of writing direction. */
const terminalControls = /[\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g;

/**
 * Writes a text and a newline; answers why it could not.
 *
 * What people's devices call themselves is part of it, and must neither command the terminal nor turn the order of
 * what it shows: an escape says the same, in JSON too.
 */
function write(stream: Writable, given: string): Promise<NodeJS.ErrnoException | undefined> {
  const text = given.replaceAll(
    terminalControls,
    (character) => `\\u${character.charCodeAt(0).toString(16).padStart(4, '0')}`,
  );
  return new Promise((resolve) => {
    // The stream emits what it tells the callback, too, and unheard it would end the process.
    stream.once('error', resolve);
    stream.write(`${text}\n`, (error) => resolve(error ?? undefined));
  });
}

function unwritten({ remedy }: CommandResult, { code, name }: NodeJS.ErrnoException): string {
  const message = `The command is done, but its output could not be written (${code ?? name}).`;
  return remedy === undefined ? message : `${message} ${remedy}`;
}

async function dispatch(words: readonly string[], io: CommandLineIo): Promise<CommandResult> {
  if (words[0] === 'help' || words.includes('--help') || words.includes('-h')) {
    const about = commandsAbout(words, descriptions);
    return {
      text: helpText(about),
      json: about.map(({ name, usage, summary }) => ({ name, usage, summary })),
    };
  }
  if (words[0] === '--version') return { text: version, json: { version } };
  if (words[0] === 'openapi') {
    // The only command that needs the application, which takes as long to load as all the rest.
    const { openApiDocument } = await import('./openapi-document.ts');
    const document = await openApiDocument();
    return { text: JSON.stringify(document, null, 2), json: document };
  }
  const command = commands.find(
    ({ name }) => name === words.slice(0, name.split(' ').length).join(' '),
  );
  if (command === undefined) {
    throw new UsageError(`There is no command ${JSON.stringify(words.join(' '))}; try --help.`);
  }
  const given = parse(command, words.slice(command.name.split(' ').length), io);
  const config = { ...loadConfig(io.environment), ...patience };
  const dependencies = await createDependencies(config, {
    isMigrating: command.isMigrating ?? false,
    notice: (line) => io.stderr.write(`${line}\n`),
  });
  try {
    const result = await command.run(given, dependencies);
    if (result.changed !== undefined) {
      await recordAdministration(dependencies.database, command.name, result.changed);
    }
    return result;
  } finally {
    await dependencies.close();
  }
}

function parse(command: Command, words: readonly string[], io: CommandLineIo): CommandArguments {
  const { minimum, maximum } = command.positionals;
  try {
    const { values, positionals } = parseArgs({
      args: [...words],
      options: { ...command.options, json: { type: 'boolean' } },
      allowPositionals: true,
      strict: true,
    });
    if (positionals.length < minimum || positionals.length > maximum) {
      throw new UsageError(`Usage: heirloom ${command.name} ${command.usage}`);
    }
    return { positionals, options: values, readStdin: () => readStdin(io) };
  } catch (error) {
    if (error instanceof UsageError) throw error;
    const [reason] = (error as Error).message.split('\n');
    throw new UsageError(`${reason} Usage: heirloom ${command.name} ${command.usage}`);
  }
}

/** At a terminal nothing else would tell a command that waits for input from one that hangs. */
function readStdin({ stdin, stderr }: CommandLineIo): Promise<string> {
  if ('isTTY' in stdin && stdin.isTTY) {
    stderr.write('Reads what you type, in clear, up to Ctrl-D on a line of its own.\n');
  }
  return readText(stdin);
}

/** Only messages that were written for people are shown whole; others could hold bound values. */
function messageOf(error: unknown): string {
  const isForPeople =
    error instanceof UsageError ||
    error instanceof AdministrationError ||
    error instanceof StartUpError;
  if (isForPeople) return error.message;
  const code = (error as { code?: unknown }).code;
  if (code === '42P01') return 'The database has no tables yet: run heirloom migrate.';
  const trouble = databaseTroubleOf(error);
  if (trouble !== undefined) return trouble;
  return `Failed: ${error instanceof Error ? error.name : 'unknown error'}${code ? ` ${code}` : ''}`;
}
