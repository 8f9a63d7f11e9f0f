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

/** Pages of families that are looked at in one statement: some 500 rows. */
const BATCH_PAGES = 48;

/** Events are kept for as long as somebody may look into an incident. */
const SECURITY_EVENT_RETENTION_DAYS = 90;

/** Index: token_family_expires_at_index. */
const pruneFamilies: Statement = {
  name: 'heirloom-prune-families',
  text: `
  delete from token_family where id in (
    select id from token_family where expires_at <= clock_timestamp()
    order by expires_at limit ${BATCH_ROWS} for update skip locked
  )`,
};

/** How far the walk over all families goes: through a table that is in partitions, as far as the longest. */
const countPages: Statement = {
  name: 'heirloom-count-family-pages',
  text: `
  select (
    greatest(
      pg_relation_size('token_family'),
      (select max(pg_relation_size(relid)) from pg_partition_tree('token_family'))
    ) / current_setting('block_size')::int
  )::int as pages`,
};

/**
 * Expired access tokens of the families in a range of pages. By place: an index would have to cover what
 * every rotation changes. Families that somebody holds are being refreshed, which does the same.
 */
const pruneAccessTokens: Statement = {
  name: 'heirloom-prune-access-tokens',
  text: `
  with due as materialized (
    select f.id, f.ctid as place, cardinality(f.access_tokens) as tokens
    from token_family f
    where f.ctid >= format('(%s,0)', $1::int)::tid and f.ctid < format('(%s,0)', $2::int)::tid
      and exists (
        select from unnest(f.access_tokens) token where token.expires_at <= statement_timestamp()
      )
    for no key update skip locked
  ), pruned as (
    update token_family f set access_tokens = array(
      select token from unnest(f.access_tokens) token
      where token.expires_at > statement_timestamp()
    )
    from due where f.ctid = due.place and f.id = due.id
    returning due.tokens - cardinality(f.access_tokens) as deleted
  )
  select coalesce(sum(deleted), 0)::int as deleted from pruned`,
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

/** What a run of `prune` may be told. */
export interface PruneOptions {
  /** Asked between batches, so that a shutdown need not wait for a backlog. */
  readonly isStopping?: () => boolean;
  /** Walks this part of all families only: from a share of the table to another, 0 to 1. */
  readonly walk?: { readonly from: number; readonly to: number };
}

/** Prunes everything that is due, batch by batch. */
export async function prune(
  database: Database,
  { isStopping = () => false, walk = { from: 0, to: 1 } }: PruneOptions = {},
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
  const walkFamilies = async (): Promise<number> => {
    const [table] = await database.run<{ pages: number }>(countPages, []);
    const pages = table?.pages ?? 0;
    const end = Math.ceil(pages * walk.to);
    let total = 0;
    for (let page = Math.floor(pages * walk.from); page < end && !isStopping(); ) {
      const next = Math.min(page + BATCH_PAGES, end);
      const [batch] = await database.run<{ deleted: number }>(pruneAccessTokens, [page, next]);
      total += batch?.deleted ?? 0;
      page = next;
    }
    return total;
  };
  return {
    families: await drain(pruneFamilies),
    accessTokens: await walkFamilies(),
    clientSecrets: await drain(pruneClientSecrets),
    clients: await drain(pruneClients),
    securityEvents: await drain(pruneSecurityEvents),
    failureCounters: await drain(pruneFailureCounters),
    familiarNetworks: await drain(pruneFamiliarNetworks),
  };
}
