/**
 * Statements that count failed credentials, by the rules of the hot paths.
 *
 * Counting is an insert that turns into an update: it locks the row, adds, and answers the sum, so that
 * every attempt has a position of its own among all instances' attempts, and no two can both be the last
 * one allowed. Rows are met in the order of their keys, whose first byte is the kind, so that batches
 * cannot wait for each other in a circle.
 */
import type { Statement } from './statement.ts';

/** Failures of one account from one network, in a minute. */
export const MAXIMUM_PAIR_FAILURES = 10;
export const PAIR_WINDOW_SECONDS = 60;
/** Accounts that may fail from one network, in a quarter of an hour. */
export const MAXIMUM_NETWORK_FAILURES = 50;
export const NETWORK_WINDOW_SECONDS = 900;
/** Failures of one account without a success in between; one more is evaluated, and then one in 30 s. */
export const MAXIMUM_ACCOUNT_FAILURES = 99;
export const ACCOUNT_WINDOW_SECONDS = 86_400;
export const STRANGER_INTERVAL_SECONDS = 30;
export const FAMILIAR_DAYS = 30;
/** Failed authentications of one client from one network, in a minute. */
export const MAXIMUM_CLIENT_FAILURES = 20;
export const CLIENT_WINDOW_SECONDS = 60;

/** Networks that are remembered for one person. */
const MAXIMUM_FAMILIAR_NETWORKS = 32;

const seconds = (count: number): string => `interval '${count} seconds'`;

/** Whole seconds after which whatever ends at `instant` has ended. */
const wait = (instant: string): string =>
  `greatest(1, ceil(extract(epoch from ${instant} - i.now)))::int`;

/** Counts on, or anew where the window of row `c` is over; the new row's end tells what time it is. */
const countOn = (windowSeconds: number): string => `
    on conflict (key) do update set
      failures = excluded.failures
        + case when c.expires_at <= excluded.expires_at - ${seconds(windowSeconds)} then 0
          else c.failures end,
      expires_at =
        case when c.expires_at <= excluded.expires_at - ${seconds(windowSeconds)}
          then excluded.expires_at else c.expires_at end
    returning c.key, c.failures, c.expires_at`;

/**
 * Reserves failures for logins that are about to be verified, and says which may be.
 *
 * First the account on its network; then, for its first failure there, the network; last the account.
 * What an earlier counter refuses the later ones never see, so that one network's flood cannot throttle
 * an account. Beyond its limit a familiar network keeps its own budget, and strangers share one attempt
 * per interval.
 *
 * Indexes: failure_counter_pkey, familiar_network_pkey.
 */
export const reserveLoginStatement: Statement = {
  name: 'heirloom-reserve-login',
  text: `
  with instant as materialized (
    select clock_timestamp() as now
  ), attempt as materialized (
    select
      a.*,
      row_number() over (partition by a.pair_key order by a.ordinal) as pair_rank,
      count(*) over (partition by a.pair_key) as pair_size,
      exists (
        select from familiar_network f
        where f.resource_owner_id = a.subject and f.network = a.neighbourhood
          and f.last_login_at > i.now - interval '${FAMILIAR_DAYS} days'
      ) as is_familiar
    from unnest($1::int[], $2::bytea[], $3::bytea[], $4::bytea[], $5::uuid[], $6::text[])
      as a(ordinal, pair_key, network_key, account_key, subject, neighbourhood)
    cross join instant i
  ), pair as (
    insert into failure_counter as c (key, failures, expires_at)
    select a.pair_key, count(*), i.now + ${seconds(PAIR_WINDOW_SECONDS)}
    from attempt a cross join instant i
    group by a.pair_key, i.now order by a.pair_key
    ${countOn(PAIR_WINDOW_SECONDS)}
  ), on_network as materialized (
    select
      a.*, p.expires_at as pair_expires_at, a.position = 1 as is_new,
      count(*) filter (where a.position = 1)
        over (partition by a.network_key order by a.ordinal) as network_rank,
      count(*) filter (where a.position = 1) over (partition by a.network_key) as network_size
    from (
      select a.*, p.failures - a.pair_size + a.pair_rank as position
      from attempt a join pair p on p.key = a.pair_key
    ) a join pair p on p.key = a.pair_key
    where a.position <= ${MAXIMUM_PAIR_FAILURES}
  ), network as (
    insert into failure_counter as c (key, failures, expires_at)
    select a.network_key, max(a.network_size), i.now + ${seconds(NETWORK_WINDOW_SECONDS)}
    from on_network a cross join instant i
    group by a.network_key, i.now order by a.network_key
    ${countOn(NETWORK_WINDOW_SECONDS)}
  ), on_account as materialized (
    select
      a.*,
      row_number() over (partition by a.account_key order by a.ordinal) as account_rank,
      count(*) over (partition by a.account_key) as account_size
    from (
      select
        a.*, n.expires_at as network_expires_at,
        n.failures - a.network_size + a.network_rank as network_position
      from on_network a join network n on n.key = a.network_key
    ) a
    where a.network_position - case when a.is_new then 1 else 0 end < ${MAXIMUM_NETWORK_FAILURES}
  ), account as (
    insert into failure_counter as c (key, failures, expires_at)
    select a.account_key, count(*), i.now + ${seconds(ACCOUNT_WINDOW_SECONDS)}
    from on_account a cross join instant i
    group by a.account_key, i.now order by a.account_key
    on conflict (key) do update set
      failures = excluded.failures
        + case when c.expires_at <= excluded.expires_at - ${seconds(ACCOUNT_WINDOW_SECONDS)} then 0
          else c.failures end,
      expires_at = excluded.expires_at,
      throttled_until = case
        when c.expires_at <= excluded.expires_at - ${seconds(ACCOUNT_WINDOW_SECONDS)} then null
        when c.failures + excluded.failures <= ${MAXIMUM_ACCOUNT_FAILURES} then null
        when c.throttled_until > excluded.expires_at - ${seconds(ACCOUNT_WINDOW_SECONDS)}
          then c.throttled_until
        else excluded.expires_at
          - ${seconds(ACCOUNT_WINDOW_SECONDS)} + ${seconds(STRANGER_INTERVAL_SECONDS)}
      end
    returning c.key, c.failures, c.throttled_until
  ), decided as (
    select
      a.*, c.throttled_until, c.failures - a.account_size + a.account_rank as account_position,
      -- Only this very statement's turn ends exactly an interval from now.
      c.throttled_until = i.now + ${seconds(STRANGER_INTERVAL_SECONDS)} as has_turn
    from on_account a join account c on c.key = a.account_key cross join instant i
  ), turn as (
    select
      d.*,
      count(*) filter (
        where not d.is_familiar and d.account_position > ${MAXIMUM_ACCOUNT_FAILURES}
      ) over (partition by d.account_key order by d.ordinal) as stranger_rank
    from decided d
  )
  select
    a.ordinal,
    case
      when t.is_familiar or t.account_position <= ${MAXIMUM_ACCOUNT_FAILURES}
        or (t.has_turn and t.stranger_rank = 1) then null
      when t.ordinal is not null then ${wait('t.throttled_until')}
      when o.ordinal is not null then ${wait('n.expires_at')}
      else ${wait('p.expires_at')}
    end as retry_after_seconds,
    p.expires_at::text as pair_expires_at,
    t.network_expires_at::text as network_expires_at,
    t.account_position::int, t.network_position::int, t.is_new
  from attempt a
  join pair p on p.key = a.pair_key
  left join on_network o on o.ordinal = a.ordinal
  left join network n on n.key = a.network_key
  left join turn t on t.ordinal = a.ordinal
  cross join instant i`,
};

/**
 * Takes a reservation back, unless its windows are over: what is counted by then is somebody else's.
 *
 * The network counts an account once, by its first attempt. So whose release leaves nothing of the account gives
 * that back, and not the first attempt: others beside it may have failed, and nothing would tell of them.
 *
 * Index: failure_counter_pkey.
 */
export const releaseLoginStatement: Statement = {
  name: 'heirloom-release-login',
  text: `
  with request as materialized (
    select * from (
      values ($1::bytea, $4::timestamptz), ($2::bytea, $5::timestamptz), ($3::bytea, null)
    ) as r(key, expires_at) order by key
  ), locked as materialized (
    select c.key, c.failures, c.expires_at = coalesce(r.expires_at, c.expires_at) as is_counted
    from request r
    cross join lateral (
      select c.key, c.failures, c.expires_at from failure_counter c where c.key = r.key for update
    ) c
  )
  update failure_counter c set failures = c.failures - 1
  where c.failures > 0 and c.key = any(array(
    select l.key from locked l
    where l.is_counted and (l.key <> $2 or exists (
      select from locked pair where pair.key = $1 and pair.is_counted and pair.failures = 1
    ))
  ))`,
};

/**
 * Clears an account's counters after a login, gives the network back what was reserved on it, and
 * remembers where the person has come from, at most once a day.
 *
 * Indexes: failure_counter_pkey, familiar_network_pkey.
 */
export const clearLoginStatement: Statement = {
  name: 'heirloom-clear-login',
  text: `
  with request as materialized (
    select * from unnest(array[$1, $2, $3]::bytea[]) as r(key) order by key
  ), locked as materialized (
    select c.key
    from request r
    cross join lateral (
      select c.key from failure_counter c where c.key = r.key for update
    ) c
  ), cleared as (
    delete from failure_counter c
    where c.key = any(array(select key from locked where key <> $2::bytea))
  ), returned as (
    -- A condition on the instant could be looked up by the index of expiries instead.
    update failure_counter c set
      failures = c.failures - case when c.expires_at = $4::timestamptz then 1 else 0 end
    where c.key = any(array(select key from locked where key = $2::bytea)) and c.failures > 0
  ), forgotten as (
    delete from familiar_network f
    where f.resource_owner_id = $5 and f.network = any(array(
      select o.network from (
        select network, last_login_at from familiar_network
        where resource_owner_id = $5 and network <> $6
        offset 0
      ) o
      order by o.last_login_at desc offset ${MAXIMUM_FAMILIAR_NETWORKS - 1}
    ))
  )
  insert into familiar_network as f (resource_owner_id, network, last_login_at)
  values ($5, $6, clock_timestamp())
  on conflict (resource_owner_id, network) do update set last_login_at = excluded.last_login_at
  where f.last_login_at < excluded.last_login_at - interval '1 day'`,
};

/**
 * Counts failed authentications of clients.
 *
 * Index: failure_counter_pkey.
 */
export const countClientFailureStatement: Statement = {
  name: 'heirloom-count-client-failure',
  text: `
  with instant as materialized (
    select clock_timestamp() as now
  ), attempt as materialized (
    select
      a.*, row_number() over (partition by a.key order by a.ordinal) as rank,
      count(*) over (partition by a.key) as size
    from unnest($1::int[], $2::bytea[]) as a(ordinal, key)
  ), counted as (
    insert into failure_counter as c (key, failures, expires_at)
    select a.key, count(*), i.now + ${seconds(CLIENT_WINDOW_SECONDS)}
    from attempt a cross join instant i
    group by a.key, i.now order by a.key
    ${countOn(CLIENT_WINDOW_SECONDS)}
  )
  select
    a.ordinal, (c.failures - a.size + a.rank)::int as position,
    ${wait('c.expires_at')} as retry_after_seconds
  from attempt a join counted c on c.key = a.key cross join instant i`,
};

/** Reads what keys the buckets; it never changes. Index: server_state_pkey. */
export const nameKeyStatement: Statement = {
  name: 'heirloom-name-key',
  text: 'select name_key from server_state where id = 1',
};

/** Writes down that somebody is guessing; no family is concerned. */
export const recordGuessingStatement: Statement = {
  name: 'heirloom-record-guessing',
  text: `
  insert into security_event (kind, client_id, subject, address)
  values ($1, $2, $3::uuid, $4)`,
};
