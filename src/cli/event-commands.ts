/** `heirloom event …` */
import type { SecurityEvent } from '../storage/event-registry.ts';
import { type Command, stringOption, table, UsageError } from './command.ts';

export const eventCommands: readonly Command[] = [
  {
    name: 'event list',
    usage: '[--last COUNT]',
    summary: 'List security events, the latest first (the last 50)',
    options: { last: { type: 'string' } },
    positionals: { minimum: 0, maximum: 0 },
    async run(given, { events }) {
      const last = stringOption(given, 'last') ?? '50';
      if (!/^([1-9]\d{0,2}|1000)$/.test(last)) {
        throw new UsageError('--last takes a number from 1 to 1000.');
      }
      const rows = (await events.list(Number(last))).map(wireEvent);
      return {
        json: rows,
        text: table(rows, 'There are no events.', [
          'occurred_at',
          'kind',
          'client_id',
          'username',
          'address',
          'family_address',
        ]),
      };
    },
  },
];

const wireEvent = (event: SecurityEvent) => ({
  occurred_at: event.occurredAt,
  kind: event.kind,
  client_id: event.clientId,
  subject: event.subject,
  username: event.username,
  family_id: event.familyId,
  address: event.address,
  family_address: event.familyAddress,
});
