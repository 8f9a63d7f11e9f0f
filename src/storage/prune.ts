/** Housekeeping: deletes what is dead for good, in batches that hold no lock for long. */
import type { Database } from './database.ts';
import { FAMILIAR_DAYS } from './failure-statements.ts';
import type { Statement } from './statement.ts';

/** How many rows went. */
export interface Pruned {
  readonly families: number;
  readonly accessTokens: number;
  readonly clientSecrets: number;
  readonly clients: number;
  readonly securityEvents: number;
  readonly failureCounters: number;
  readonly familiarNetworks: number;
}

const BATCH_ROWS = 500;

/** Events are kept for as long as somebody may look into an incident. */
const SECURITY_EVENT_RETENTION_DAYS = 90;

/** Index: token_family_expires_at_index. Its access tokens expired before it did and go by themselves. */
const pruneFamilies: Statement = {
  name: 'heirloom-prune-families',
  text: `
  delete from token_family where id in (
    select id from token_family where expires_at <= clock_timestamp()
    order by expires_at limit ${BATCH_ROWS} for update skip locked
  )`,
};

/** Index: access_token_expires_at_index. */
const pruneAccessTokens: Statement = {
  name: 'heirloom-prune-access-tokens',
  text: `
  delete from access_token where (family_id, digest) in (
    select family_id, digest from access_token where expires_at <= clock_timestamp()
    order by expires_at limit ${BATCH_ROWS} for update skip locked
  )`,
};

/** Few rows. */
const pruneClientSecrets: Statement = {
  name: 'heirloom-prune-client-secrets',
  text: 'delete from client_secret where expires_at <= clock_timestamp()',
};

/** Few rows; index for the families: token_family_client_key_index. */
const pruneClients: Statement = {
  name: 'heirloom-prune-clients',
  text: `
  delete from client c
  where c.deleted_at is not null
    and not exists (select from token_family f where f.client_key = c.key)`,
};

/** Index: security_event_occurred_at_index. */
const pruneSecurityEvents: Statement = {
  name: 'heirloom-prune-security-events',
  text: `
  delete from security_event where id in (
    select id from security_event
    where occurred_at < clock_timestamp() - interval '${SECURITY_EVENT_RETENTION_DAYS} days'
    order by occurred_at limit ${BATCH_ROWS} for update skip locked
  )`,
};

/** Index: failure_counter_expires_at_index. */
const pruneFailureCounters: Statement = {
  name: 'heirloom-prune-failure-counters',
  text: `
  delete from failure_counter where key in (
    select key from failure_counter where expires_at <= clock_timestamp()
    order by expires_at limit ${BATCH_ROWS} for update skip locked
  )`,
};

/** Index: familiar_network_last_login_at_index. */
const pruneFamiliarNetworks: Statement = {
  name: 'heirloom-prune-familiar-networks',
  text: `
  delete from familiar_network where (resource_owner_id, network) in (
    select resource_owner_id, network from familiar_network
    where last_login_at < clock_timestamp() - interval '${FAMILIAR_DAYS} days'
    order by last_login_at limit ${BATCH_ROWS} for update skip locked
  )`,
};

/**
 * Prunes everything that is due, batch by batch.
 *
 * @param isStopping asked between batches, so that a shutdown need not wait for a backlog
 */
export async function prune(
  database: Database,
  isStopping: () => boolean = () => false,
): Promise<Pruned> {
  const drain = async (statement: Statement): Promise<number> => {
    let total = 0;
    while (!isStopping()) {
      const deleted = await database.affect(statement, []);
      total += deleted;
      if (deleted < BATCH_ROWS) break;
    }
    return total;
  };
  return {
    families: await drain(pruneFamilies),
    accessTokens: await drain(pruneAccessTokens),
    clientSecrets: await drain(pruneClientSecrets),
    clients: await drain(pruneClients),
    securityEvents: await drain(pruneSecurityEvents),
    failureCounters: await drain(pruneFailureCounters),
    familiarNetworks: await drain(pruneFamiliarNetworks),
  };
}
