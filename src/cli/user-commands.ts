/** `heirloom user …` */
import type { RegisteredResourceOwner } from '../storage/resource-owner-registry.ts';
import { type Command, type CommandArguments, table, UsageError } from './command.ts';

const one = { minimum: 1, maximum: 1 };
const passwordOptions = { 'password-stdin': { type: 'boolean' } } as const;

export const userCommands: readonly Command[] = [
  {
    name: 'user create',
    usage: 'NAME [--password-stdin]',
    summary: 'Create a person; without a password they cannot log in yet',
    options: passwordOptions,
    positionals: one,
    async run(given, { resourceOwners }) {
      const password = await passwordFrom(given);
      const owner = await resourceOwners.create(nameOf(given), password);
      return {
        ...change(owner),
        text: `Created ${owner.username} (${owner.subject})${password === undefined ? ' without a password' : ''}.`,
      };
    },
  },
  {
    name: 'user list',
    usage: '',
    summary: 'List all people',
    options: {},
    positionals: { minimum: 0, maximum: 0 },
    async run(_given, { resourceOwners }) {
      const rows = (await resourceOwners.list()).map(wireUser);
      return { json: rows, text: table(rows, 'There are no people.') };
    },
  },
  {
    name: 'user set-password',
    usage: 'NAME --password-stdin',
    summary: 'Change a password and end all sessions of the person',
    options: passwordOptions,
    positionals: one,
    async run(given, { resourceOwners }) {
      const password = await passwordFrom(given);
      if (password === undefined) throw new UsageError('--password-stdin is missing.');
      const owner = await resourceOwners.setPassword(nameOf(given), password);
      return { ...change(owner), text: `Changed the password of ${owner.username}.` };
    },
  },
  {
    name: 'user disable',
    usage: 'NAME',
    summary: 'Refuse logins of a person and end all their sessions',
    options: {},
    positionals: one,
    async run(given, { resourceOwners }) {
      const owner = await resourceOwners.disable(nameOf(given));
      return { ...change(owner), text: `Disabled ${owner.username}.` };
    },
  },
  {
    name: 'user enable',
    usage: 'NAME',
    summary: 'Allow logins of a disabled person again',
    options: {},
    positionals: one,
    async run(given, { resourceOwners }) {
      const owner = await resourceOwners.enable(nameOf(given));
      return { ...change(owner), text: `Enabled ${owner.username}.` };
    },
  },
  {
    name: 'user delete',
    usage: 'NAME',
    summary: 'Delete a person with all their sessions',
    options: {},
    positionals: one,
    async run(given, { resourceOwners }) {
      const owner = await resourceOwners.delete(nameOf(given));
      return { ...change(owner), text: `Deleted ${owner.username}.` };
    },
  },
];

const nameOf = ({ positionals: [name] }: CommandArguments): string => name as string;

/** One final newline is dropped, because `echo` adds it; every other character counts. */
async function passwordFrom(given: CommandArguments): Promise<string | undefined> {
  if (given.options['password-stdin'] !== true) return undefined;
  return (await given.readStdin()).replace(/\r?\n$/, '');
}

const change = (owner: RegisteredResourceOwner) => ({
  json: wireUser(owner),
  changed: { subject: owner.subject },
});

const wireUser = (owner: RegisteredResourceOwner) => ({
  sub: owner.subject,
  username: owner.username,
  has_password: owner.hasPassword,
  created_at: owner.createdAt,
  disabled_at: owner.disabledAt,
});
