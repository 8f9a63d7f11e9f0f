/**
 * The statements of the hot paths: named, prepared once per connection, with bind parameters only.
 *
 * Each takes arrays and answers a row per request, found again by its `ordinal`, never by position.
 * Each names the indexes it uses; none may scan a table.
 */

import type { Statement } from './statement.ts';

/**
 * One instant for a whole statement, and the server's cut-off.
 *
 * Index: server_state_pkey.
 */
const instant = `instant as materialized (
    select i.now, date_trunc('second', i.now) as second, s.sessions_valid_after
    from (select clock_timestamp() as now offset 0) i join server_state s on s.id = 1
  )`;
const now = '(select now from instant)';
const second = '(select second from instant)';

/**
 * The client `c` or the resource owner of the family `f` may not go on. Asked for a value, the person is
 * looked for in the index of those that are disabled; `exists` could read all of that index first.
 */
const isSuspended = `(
        c.key is null or c.disabled_at is not null or c.deleted_at is not null or (
          select true from resource_owner o
          where o.id = f.resource_owner_id and o.disabled_at is not null
        ) is true
      )`;

/** Families started at or before it are dead: the later of the client's cut-off and the server's. */
const cutOff = (server: string): string => `greatest(c.sessions_valid_after, ${server})`;

/**
 * Alive, as `causeOfDeath` in `oauth/token-family.ts` defines it, for a family `f` and its client `c`.
 * The decision was made on what was read; this is the guard that it still holds when it is written.
 */
const familyIsAlive = `
      f.revoked_at is null
      and f.expires_at > ${now}
      and coalesce(f.started_at > ${cutOff('(select sessions_valid_after from instant)')}, true)
      and not ${isSuspended}`;

/** An instant as `new Date` takes it: as text it costs both sides several times as much. */
const milliseconds = (instant: string): string => `date_part('epoch', ${instant}) * 1000`;

/**
 * Reads all that one request needs: its client with its secrets, a family with its client and resource
 * owner, its lineage if the request has one to compare, and an access token. A standby answers nothing:
 * what it knows may be revoked already.
 *
 * What belongs together is one JSON array, in the order that `look-up-rows.ts` names: columns of their
 * own would cost more to send and to read than all the rest.
 *
 * Indexes: server_state_pkey, client_client_id_unique, client_secret_pkey, token_family_pkey,
 * client_pkey, resource_owner_disabled_index.
 */
export const lookUpStatement: Statement = {
  name: 'heirloom-look-up',
  text: `
  select
    r.ordinal::int as ordinal,
    service.instants,
    case when caller.key is not null then json_build_array(
      caller.key, caller.client_id, caller.client_type, caller.grant_types, caller.scope,
      caller.introspection_right, caller.audience, caller.origins, caller.delivery,
      (
        select array_agg(cs.digest) from client_secret cs
        where cs.client_key = caller.key and (cs.expires_at is null or cs.expires_at > service.now)
      ),
      caller.access_token_lifetime_seconds, caller.refresh_token_idle_lifetime_seconds,
      caller.refresh_token_lifetime_seconds, caller.retry_window_seconds
    ) end as caller,
    case when f.id is not null then json_build_array(
      f.id, f.client_key, c.client_id, f.resource_owner_id, f.scope, f.audience,
      ${milliseconds('f.started_at')}, ${milliseconds('f.idle_expires_at')},
      ${milliseconds('f.expires_at')}, ${milliseconds('f.revoked_at')},
      ${milliseconds(cutOff('service.sessions_valid_after'))},
      ${isSuspended}
    ) end as family,
    case when r.is_refresh_token and f.lineage_digest is not null then json_build_array(
      f.lineage_digest || f.current_digest || coalesce(f.previous_digest || f.successor_salt, ''),
      f.generation, ${milliseconds('f.rotated_at')}, ${milliseconds('f.retry_until')}, f.ctid
    ) end as lineage,
    case when r.access_token_digest is not null then (
      select json_build_array(
        a.scope, ${milliseconds('a.issued_at')}, ${milliseconds('a.expires_at')}
      )
      from unnest(f.access_tokens) a where a.digest = r.access_token_digest
    ) end as access_token
  from unnest($1::text[], $2::uuid[], $3::bool[], $4::bytea[]) with ordinality
    as r(client_id, family_id, is_refresh_token, access_token_digest, ordinal)
  cross join (
    select
      i.now, s.sessions_valid_after,
      json_build_array(
        ${milliseconds('i.now')}, ${milliseconds('s.pulse_at')},
        ${milliseconds('s.outage_began_at')}, ${milliseconds('s.resumed_at')}
      ) as instants
    from (select clock_timestamp() as now offset 0) i join server_state s on s.id = 1
    offset 0
  ) service
  left join client caller
    on caller.client_id = r.client_id and caller.disabled_at is null and caller.deleted_at is null
  left join token_family f on f.id = r.family_id
  left join client c on c.key = f.client_key
  where not pg_is_in_recovery()`,
};

/**
 * Starts a family for a resource owner whose credentials are still those that were verified.
 *
 * `for share` waits for a password change or a disable in flight and then sees its outcome; those
 * update the owner first and revoke families in a second statement, which sees this family.
 * Instants of expiry are whole seconds: a token dies at the very `exp` that introspection announces.
 * The person's oldest families above the limit end in the same statement.
 * A family begins after all cut-offs, by whole milliseconds; otherwise, when the clock has stepped back, people
 * would log in to what is dead. But never at infinity, where somebody has set a cut-off to that: none would end it.
 *
 * Indexes: resource_owner_pkey, token_family_resource_owner_id_started_at_index, token_family_pkey,
 * client_pkey, server_state_pkey.
 */
export const startFamilyStatement: Statement = {
  name: 'heirloom-start-family',
  text: `
  with owner as materialized (
    select id from resource_owner
    where id = $1 and credential_version = $2 and disabled_at is null
    for share
  ), ${instant}, family as (
    insert into token_family (
      id, lineage_digest, current_digest, client_key, resource_owner_id, scope, audience,
      started_at, idle_expires_at, expires_at, device_label, user_agent, address, access_tokens
    )
    select
      $3, $4, $5, $6, owner.id, $7, $8,
      greatest(i.now, nullif(${cutOff('i.sessions_valid_after')}, 'infinity') + interval '2 ms'),
      i.second + least($10::int, $11::int) * interval '1 second',
      i.second + $11 * interval '1 second',
      $13, $14, $15,
      array[row(
        $9, $7, i.now, i.second + least($12::int, $11) * interval '1 second'
      )::issued_access_token]
    from owner cross join instant i left join client c on c.key = $6
    returning idle_expires_at, (access_tokens[1]).expires_at as access_expires_at
  ), ended as (
    update token_family f set revoked_at = i.now, revocation_reason = 'session_limit'
    from owner cross join instant i
    where f.revoked_at is null and f.id = any (array(
      select older.id from token_family older
      where older.resource_owner_id = $1 and older.revoked_at is null
        and older.idle_expires_at > (select now from instant)
      order by older.started_at desc offset $16
    ))
  )
  select
    extract(epoch from access_expires_at - i.second)::int as expires_in_seconds,
    floor(extract(epoch from idle_expires_at - i.now))::int as refresh_expires_in_seconds
  from family cross join instant i`,
};

/**
 * Takes the lock of one family before a statement that could not get it without waiting, and answers where
 * the row is now.
 *
 * Index: token_family_pkey.
 */
export const lockFamilyStatement: Statement = {
  name: 'heirloom-lock-family',
  text: 'select ctid as place from token_family where id = $1 for no key update',
};

/** Access tokens of one family, with the one that is being issued. */
export const MAXIMUM_ACCESS_TOKENS_PER_FAMILY = 16;

const isAccessTokenAlive = (place: string): string =>
  `(f.access_tokens[${place}]).expires_at > ${now}`;

/**
 * The access tokens of the family `f` with a new one in front. Those that have expired go, at the latest with
 * the oldest; above the limit the oldest goes. Their places tell which that is: the clock may have stepped back.
 *
 * Most families have one or two. What stays of these is told without a subquery, which is an eighth of what
 * PostgreSQL does for a rotation.
 */
const withNewAccessToken = (digest: string, scope: string, lifetimeSeconds: string): string => `row(
        ${digest}, ${scope}, ${now},
        least(${second} + ${lifetimeSeconds} * interval '1 second', f.expires_at)
      )::issued_access_token || case
        when ${isAccessTokenAlive('cardinality(f.access_tokens)')}
          and cardinality(f.access_tokens) < ${MAXIMUM_ACCESS_TOKENS_PER_FAMILY} then f.access_tokens
        when cardinality(f.access_tokens) > 2 then array(
          select f.access_tokens[n] from generate_series(1, cardinality(f.access_tokens)) n
          where ${isAccessTokenAlive('n')} order by n limit ${MAXIMUM_ACCESS_TOKENS_PER_FAMILY - 1}
        )
        when ${isAccessTokenAlive('1')} then f.access_tokens[1:1]
        else '{}'
      end`;

/** What is left of both tokens; instants of expiry are whole seconds, those of issue are not. */
const secondsLeft = `
    extract(epoch from access_expires_at - ${second})::int as expires_in_seconds,
    floor(extract(epoch from idle_expires_at - ${now}))::int as refresh_expires_in_seconds`;

/**
 * Rotates: compare-and-set of the current digest, and the access token that comes with it.
 *
 * A row is looked for in the place where it was read, which saves a search of the largest index; while
 * the table is small, that is a filter of the search. Locks are taken in id order and never waited for, so
 * statements cannot block each other in a circle. A row is judged as it was locked and updated in the
 * place where it was locked.
 *
 * A family that was rotated or has died since it was read answers `lost`. Whoever writes a row moves it: one
 * that was written otherwise answers `moved` and its new place. One that somebody else has locked answers
 * `not_locked`, and so does one that was written after the statement's snapshot: the lock has to be
 * waited for, and tells.
 *
 * Indexes: token_family_pkey, client_pkey, server_state_pkey, resource_owner_disabled_index.
 */
export const rotateStatement: Statement = {
  name: 'heirloom-rotate',
  text: `
  with request as materialized (
    select * from unnest(
      $1::uuid[], $2::tid[], $3::bytea[], $4::bytea[], $5::bytea[],
      $6::bytea[], $7::text[], $8::int[], $9::int[], $10::int[]
    ) with ordinality as r(
      family_id, place_read, presented_digest, successor_digest, successor_salt,
      access_digest, access_scope, access_lifetime, idle_lifetime, retry_window, ordinal
    )
  ), ${instant}, locked as materialized (
    select
      r.*, f.ctid as place_locked,
      f.current_digest = r.presented_digest and f.idle_expires_at > ${now} and ${familyIsAlive}
        as may_rotate
    from request r
    join token_family f on f.ctid = r.place_read and f.id = r.family_id
    left join client c on c.key = f.client_key
    order by f.id
    for no key update of f skip locked
  ), rotated as (
    update token_family f set
      generation = f.generation + 1,
      previous_digest = f.current_digest,
      current_digest = l.successor_digest,
      successor_salt = l.successor_salt,
      rotated_at = ${now},
      retry_until = ${now} + l.retry_window * interval '1 second',
      idle_expires_at = least(${second} + l.idle_lifetime * interval '1 second', f.expires_at),
      access_tokens = ${withNewAccessToken('l.access_digest', 'l.access_scope', 'l.access_lifetime')}
    from locked l
    where f.ctid = l.place_locked and f.id = l.family_id and l.may_rotate
    returning l.ordinal, f.idle_expires_at, (f.access_tokens[1]).expires_at as access_expires_at
  )
  select
    ordinal::int as ordinal, 'rotated' as outcome, null as place,${secondsLeft}
  from rotated
  union all
  select
    r.ordinal::int,
    case
      when r.ordinal in (select ordinal from locked) or f.id is null then 'lost'
      when f.current_digest <> r.presented_digest or f.revoked_at is not null then 'lost'
      when f.ctid <> r.place_read then 'moved'
      else 'not_locked'
    end,
    f.ctid, null, null
  from request r left join token_family f on f.id = r.family_id
  where r.ordinal not in (select ordinal from rotated)`,
};

/**
 * Issues an access token beside the current refresh token, for a retry whose derived one is gone. Answers
 * `not_locked`, instead of waiting, while somebody else holds the family.
 *
 * Indexes: as `rotateStatement`.
 */
export const issueAdditionalStatement: Statement = {
  name: 'heirloom-issue-additional',
  text: `
  with ${instant}, held as materialized (
    select id from token_family where id = $1 for no key update skip locked
  ), family as (
    update token_family f set access_tokens = ${withNewAccessToken('$3', '$4', '$5')}
    from held, client c
    where f.id = held.id and c.key = f.client_key and f.current_digest = $2 and ${familyIsAlive}
    returning f.idle_expires_at, (f.access_tokens[1]).expires_at as access_expires_at
  )
  select 'issued' as outcome,${secondsLeft} from family
  union all select 'not_locked', null, null where not exists (select from held)`,
};

/**
 * Ends a family, with the event that explains it. Answers no row if it had ended before, and `not_locked`,
 * instead of waiting, while somebody else holds it.
 *
 * Whoever has run `listen heirloom_security_event` is told when the event is durable.
 *
 * Index: token_family_pkey.
 */
export const revokeFamilyStatement: Statement = {
  name: 'heirloom-revoke-family',
  text: `
  with held as materialized (
    select id from token_family
    where id = $1 and revoked_at is null
    for no key update skip locked
  ), ended as (
    update token_family f set revoked_at = clock_timestamp(), revocation_reason = $2
    from held where f.id = held.id
    returning f.id, f.resource_owner_id, f.address
  ), event as (
    insert into security_event (kind, family_id, client_id, subject, address, family_address)
    select $3, id, $4, resource_owner_id, $5, address from ended where $3::text is not null
    returning pg_notify('heirloom_security_event', to_jsonb(security_event)::text)
  )
  select case when ended.id is null then 'not_locked' else 'revoked' end as outcome, ended.address
  from token_family f left join ended on true left join event on true
  where f.id = $1 and f.revoked_at is null`,
};

const hasAccessToken = 'exists (select from unnest(f.access_tokens) a where a.digest = $2)';

/**
 * Revokes one access token: what is not in its family's row is good nowhere. Answers no row if it was gone
 * before, and `not_locked`, instead of waiting, while somebody else holds the family.
 *
 * Index: token_family_pkey.
 */
export const revokeAccessTokenStatement: Statement = {
  name: 'heirloom-revoke-access-token',
  text: `
  with held as materialized (
    select f.id from token_family f
    where f.id = $1 and ${hasAccessToken}
    for no key update skip locked
  ), revoked as (
    update token_family f set access_tokens = array(
      select kept from unnest(f.access_tokens) kept where kept.digest <> $2
    )
    from held where f.id = held.id
    returning f.id
  )
  select case when revoked.id is null then 'not_locked' else 'revoked' end as outcome
  from token_family f left join revoked on true
  where f.id = $1 and ${hasAccessToken}`,
};
