/** `heirloom session …` */
import type { Session } from '../storage/session-registry.ts';
import { type Command, stringOption, table, UsageError } from './command.ts';

const text = { type: 'string' } as const;

export const sessionCommands: readonly Command[] = [
  {
    name: 'session list',
    usage: 'NAME',
    summary: 'List the live sessions of a person',
    options: {},
    positionals: { minimum: 1, maximum: 1 },
    async run({ positionals: [username] }, { sessions }) {
      const rows = (await sessions.list(username as string)).map(wireSession);
      return {
        json: rows,
        text: table(rows, 'There are no sessions.', [
          'id',
          'client_id',
          'device_label',
          'user_agent',
          'address',
          'started_at',
        ]),
      };
    },
  },
  {
    name: 'session revoke',
    usage: 'ID | --user NAME | --client ID | --all',
    summary: 'End one session, all of a person, all of a client, or all there are',
    options: { user: text, client: text, all: { type: 'boolean' } },
    positionals: { minimum: 0, maximum: 1 },
    async run(given, { sessions, clients }) {
      const [id] = given.positionals;
      const username = stringOption(given, 'user');
      const clientId = stringOption(given, 'client');
      const isAll = given.options['all'] === true;
      const targets = [id, username, clientId, isAll || undefined].filter(
        (each) => each !== undefined,
      );
      if (targets.length !== 1) {
        throw new UsageError('Say which: an id, --user, --client or --all, and only one of them.');
      }
      if (id !== undefined) {
        await sessions.revoke(id);
        return {
          changed: { familyId: id },
          json: { revoked: 'session', id },
          text: `Ended the session ${id}.`,
        };
      }
      if (username !== undefined) {
        const { count, subject } = await sessions.revokeAll(username);
        return {
          changed: { subject },
          json: { revoked: 'user', username, count },
          text: `Ended ${count} session${count === 1 ? '' : 's'} of ${username}.`,
        };
      }
      if (clientId !== undefined) {
        await clients.endSessions(clientId);
        return {
          changed: { clientId },
          json: { revoked: 'client', client_id: clientId },
          text: `Ended all sessions of the client ${clientId}.`,
        };
      }
      await sessions.revokeEverything();
      return { changed: {}, json: { revoked: 'all' }, text: 'Ended all sessions.' };
    },
  },
];

const wireSession = (session: Session) => ({
  id: session.id,
  username: session.username,
  client_id: session.clientId,
  scope: session.scope,
  device_label: session.deviceLabel,
  user_agent: session.userAgent,
  address: session.address,
  started_at: session.startedAt,
  last_refreshed_at: session.lastRefreshedAt,
  idle_expires_at: session.idleExpiresAt,
  expires_at: session.expiresAt,
});
