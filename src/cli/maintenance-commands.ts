/** `heirloom migrate` and `heirloom prune` */
import { prune } from '../storage/prune.ts';
import type { Command } from './command.ts';

const none = { minimum: 0, maximum: 0 };

export const maintenanceCommands: readonly Command[] = [
  {
    name: 'migrate',
    usage: '',
    summary: 'Bring the database to the current schema',
    options: {},
    positionals: none,
    isMigrating: true,
    async run(_given, { appliedMigrations }) {
      return {
        json: { applied: appliedMigrations },
        text:
          appliedMigrations.length === 0
            ? 'The database is up to date.'
            : `Applied ${appliedMigrations.join(', ')}.`,
      };
    },
  },
  {
    name: 'prune',
    usage: '',
    summary: 'Delete what is dead for good (which the server does every minute)',
    options: {},
    positionals: none,
    async run(_given, { database }) {
      const pruned = await prune(database);
      return {
        json: {
          families: pruned.families,
          access_tokens: pruned.accessTokens,
          client_secrets: pruned.clientSecrets,
          clients: pruned.clients,
          security_events: pruned.securityEvents,
          failure_counters: pruned.failureCounters,
          familiar_networks: pruned.familiarNetworks,
        },
        text:
          `Deleted ${pruned.families} sessions, ${pruned.accessTokens} access tokens, ` +
          `${pruned.clientSecrets} client secrets, ${pruned.clients} clients, ` +
          `${pruned.securityEvents} security events, ${pruned.failureCounters} failure counters and ` +
          `${pruned.familiarNetworks} familiar networks.`,
      };
    },
  },
];
