/** `heirloom client …` */
import { MAXIMUM_RETRY_WINDOW_SECONDS } from '../oauth/client.ts';
import {
  type ClientSettings,
  type RegisteredClient,
  SECRET_OVERLAP_SECONDS,
} from '../storage/client-registry.ts';
import {
  type Command,
  type CommandArguments,
  choiceOption,
  listOption,
  secondsOption,
  stringOption,
  table,
  UsageError,
} from './command.ts';

const one = { minimum: 1, maximum: 1 };
const none = { minimum: 0, maximum: 0 };
const text = { type: 'string' } as const;
const list = { type: 'string', multiple: true } as const;

const settingOptions = {
  grant: list,
  scope: list,
  introspection: text,
  audience: list,
  origin: list,
  delivery: text,
  'access-token-lifetime': text,
  'refresh-token-idle-lifetime': text,
  'refresh-token-lifetime': text,
  'retry-window': text,
};

const settingUsage =
  '[--grant password|refresh_token]… [--scope NAME]… [--introspection none|own|any] ' +
  '[--audience URI]… [--origin ORIGIN]… [--delivery body|cookie] [--access-token-lifetime SECONDS] ' +
  '[--refresh-token-idle-lifetime SECONDS] [--refresh-token-lifetime SECONDS] [--retry-window SECONDS]';

export const clientCommands: readonly Command[] = [
  {
    name: 'client create',
    usage: `--id ID --type confidential|public ${settingUsage}`,
    summary: 'Register a client; its secret is shown now and never again',
    options: { id: text, type: text, ...settingOptions },
    positionals: none,
    async run(given, { clients }) {
      const clientId = stringOption(given, 'id');
      const clientType = choiceOption(given, 'type', ['confidential', 'public']);
      if (clientId === undefined) throw new UsageError('--id is missing.');
      if (clientType === undefined) throw new UsageError('--type is missing.');
      const { client, clientSecret } = await clients.create({
        clientId,
        clientType,
        ...settingsFrom(given),
      });
      return {
        changed: { clientId },
        ...(clientSecret && { remedy: newSecretRemedy(clientId) }),
        json: { ...wireClient(client), ...(clientSecret && { client_secret: clientSecret }) },
        text:
          `Registered the ${clientType} client ${clientId}.` +
          (clientSecret ? `\nclient_secret: ${clientSecret}\nIt is not shown again.` : ''),
      };
    },
  },
  {
    name: 'client list',
    usage: '',
    summary: 'List all clients',
    options: {},
    positionals: none,
    async run(_given, { clients }) {
      const rows = (await clients.list()).map(wireClient);
      return {
        json: rows,
        text: table(rows, 'There are no clients.', [
          'client_id',
          'client_type',
          'grant_types',
          'scope',
          'introspection',
          'disabled_at',
        ]),
      };
    },
  },
  {
    name: 'client update',
    usage: `ID ${settingUsage}`,
    summary: 'Change a client: lists are replaced, and "default" unsets a lifetime',
    options: settingOptions,
    positionals: one,
    async run(given, { clients }) {
      const client = await clients.update(idOf(given), settingsFrom(given));
      return { ...change(client), text: `Changed the client ${client.clientId}.` };
    },
  },
  {
    name: 'client rotate-secret',
    usage: 'ID [--overlap SECONDS]',
    summary: 'Give a client a new secret; the old one works on for the overlap (a day)',
    options: { overlap: text },
    positionals: one,
    async run(given, { clients }) {
      const clientId = idOf(given);
      const overlapSeconds =
        secondsOption(given, 'overlap', { minimum: 0 }) ?? SECRET_OVERLAP_SECONDS;
      const { clientSecret } = await clients.rotateSecret(clientId, overlapSeconds);
      return {
        changed: { clientId },
        remedy: newSecretRemedy(clientId),
        json: { client_id: clientId, client_secret: clientSecret, overlap: overlapSeconds },
        text: `client_secret: ${clientSecret}\nIt is not shown again. The old one works for ${overlapSeconds} s.`,
      };
    },
  },
  {
    name: 'client secrets',
    usage: 'ID',
    summary: "List when a client's secrets were made and last used, and when they end",
    options: {},
    positionals: one,
    async run(given, { clients }) {
      const rows = (await clients.listSecrets(idOf(given))).map(
        ({ createdAt, lastUsedAt, expiresAt }) => ({
          created_at: createdAt,
          last_used_at: lastUsedAt,
          expires_at: expiresAt,
        }),
      );
      return { json: rows, text: table(rows, 'There are no secrets.') };
    },
  },
  {
    name: 'client disable',
    usage: 'ID',
    summary: 'Refuse a client and suspend its tokens',
    options: {},
    positionals: one,
    async run(given, { clients }) {
      const client = await clients.disable(idOf(given));
      return { ...change(client), text: `Disabled the client ${client.clientId}.` };
    },
  },
  {
    name: 'client enable',
    usage: 'ID',
    summary: 'Accept a disabled client again',
    options: {},
    positionals: one,
    async run(given, { clients }) {
      const client = await clients.enable(idOf(given));
      return { ...change(client), text: `Enabled the client ${client.clientId}.` };
    },
  },
  {
    name: 'client delete',
    usage: 'ID',
    summary: 'Delete a client and end all its sessions',
    options: {},
    positionals: one,
    async run(given, { clients }) {
      const client = await clients.delete(idOf(given));
      return { ...change(client), text: `Deleted the client ${client.clientId}.` };
    },
  },
];

const idOf = ({ positionals: [id] }: CommandArguments): string => id as string;

const newSecretRemedy = (clientId: string): string =>
  `heirloom client rotate-secret ${clientId} makes a new secret.`;

/** Only what was given, so that an update leaves the rest alone. */
function settingsFrom(given: CommandArguments): Partial<ClientSettings> {
  const settings = {
    grantTypes: listOption(given, 'grant'),
    scope: listOption(given, 'scope'),
    introspectionRight: choiceOption(given, 'introspection', ['none', 'own', 'any']),
    audience: listOption(given, 'audience'),
    origins: listOption(given, 'origin'),
    delivery: choiceOption(given, 'delivery', ['body', 'cookie']),
    accessTokenLifetimeSeconds: secondsOption(given, 'access-token-lifetime'),
    refreshTokenIdleLifetimeSeconds: secondsOption(given, 'refresh-token-idle-lifetime'),
    refreshTokenLifetimeSeconds: secondsOption(given, 'refresh-token-lifetime'),
    retryWindowSeconds: secondsOption(given, 'retry-window', {
      minimum: 0,
      maximum: MAXIMUM_RETRY_WINDOW_SECONDS,
    }),
  };
  const entries = Object.entries(settings).filter(([, value]) => value !== undefined);
  return Object.fromEntries(entries) as Partial<ClientSettings>;
}

const change = (client: RegisteredClient) => ({
  json: wireClient(client),
  changed: { clientId: client.clientId },
});

/** Names as RFC 7591 §2 has them, where it has them; null stands for the server's default. */
const wireClient = (client: RegisteredClient) => ({
  client_id: client.clientId,
  client_type: client.clientType,
  grant_types: client.grantTypes,
  scope: client.scope.join(' '),
  introspection: client.introspectionRight,
  audience: client.audience,
  origins: client.origins,
  delivery: client.delivery,
  access_token_lifetime: client.accessTokenLifetimeSeconds,
  refresh_token_idle_lifetime: client.refreshTokenIdleLifetimeSeconds,
  refresh_token_lifetime: client.refreshTokenLifetimeSeconds,
  retry_window: client.retryWindowSeconds,
  created_at: client.createdAt,
  disabled_at: client.disabledAt,
});
