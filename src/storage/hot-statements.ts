/**
 * The statements of the hot paths: named, prepared once per connection, with bind parameters only.
 *
 * Each takes arrays and answers a row per request, found again by its `ordinal`, never by position.
 * Each names the indexes it uses; none may scan a table.
 */

import type { Statement } from './statement.ts';

/**
 * Alive, as `causeOfDeath` in `oauth/token-family.ts` defines it, for a family `f`.
 * The decision was made on what was read; this is the guard that it still holds when it is written.
 * (Asked for values, client and resource owner are found by key; a join could read them all.)
 */
const familyIsAlive = `
      f.revoked_at is null
      and f.expires_at > i.now
      and (s.sessions_valid_after is null or f.started_at > s.sessions_valid_after)
      and (
        select
          c.disabled_at is null and c.deleted_at is null
          and (c.sessions_valid_after is null or f.started_at > c.sessions_valid_after)
        from client c where c.key = f.client_key
      )
      and (
        select o.disabled_at is null from resource_owner o where o.id = f.resource_owner_id
      ) is not false`;

/** An instant as `new Date` takes it: as text it costs both sides several times as much. */
const milliseconds = (instant: string): string => `date_part('epoch', ${instant}) * 1000`;

/**
 * Reads all that one request needs: its client with its secrets, a family with its client and resource
 * owner, its lineage if the request has one to compare, and an access token. A standby answers nothing:
 * what it knows may be revoked already.
 *
 * Indexes: server_state_pkey, client_client_id_unique, client_secret_pkey, token_family_pkey,
 * client_pkey, resource_owner_pkey, access_token_pkey.
 */
export const lookUpStatement: Statement = {
  name: 'heirloom-look-up',
  text: `
  select
    r.ordinal, ${milliseconds('i.now')} as now,
    ${milliseconds('s.pulse_at')} as pulse_at,
    ${milliseconds('s.outage_began_at')} as outage_began_at,
    ${milliseconds('s.resumed_at')} as resumed_at,
    caller.key as caller_key, caller.client_id as caller_client_id,
    caller.client_type, caller.grant_types, caller.scope as caller_scope,
    caller.introspection_right, caller.audience as caller_audience,
    caller.origins as caller_origins, caller.delivery,
    caller.access_token_lifetime_seconds, caller.refresh_token_idle_lifetime_seconds,
    caller.refresh_token_lifetime_seconds, caller.retry_window_seconds,
    (
      select array_agg(cs.digest) from client_secret cs
      where cs.client_key = caller.key and (cs.expires_at is null or cs.expires_at > i.now)
    ) as secret_digests,
    f.id as family_id, f.client_key as family_client_key, c.client_id as family_client_id,
    f.resource_owner_id, f.scope as family_scope, f.audience as family_audience,
    l.lineage_digest, l.generation, l.current_digest, l.previous_digest, l.successor_salt,
    ${milliseconds('l.rotated_at')} as rotated_at,
    ${milliseconds('l.retry_until')} as retry_until,
    ${milliseconds('f.started_at')} as started_at,
    ${milliseconds('f.idle_expires_at')} as idle_expires_at,
    ${milliseconds('f.expires_at')} as family_expires_at,
    ${milliseconds('f.revoked_at')} as family_revoked_at,
    ${milliseconds('greatest(c.sessions_valid_after, s.sessions_valid_after)')}
      as sessions_valid_after,
    (c.disabled_at is not null or c.deleted_at is not null or o.disabled_at is not null)
      as is_suspended,
    a.digest as access_token_digest, a.scope as access_token_scope,
    ${milliseconds('a.issued_at')} as issued_at,
    ${milliseconds('a.expires_at')} as access_token_expires_at,
    ${milliseconds('a.revoked_at')} as access_token_revoked_at
  from unnest($1::int[], $2::text[], $3::uuid[], $4::bool[], $5::bytea[])
    as r(ordinal, client_id, family_id, is_refresh_token, access_token_digest)
  cross join (select clock_timestamp() as now offset 0) i
  join server_state s on s.id = 1
  left join client caller
    on caller.client_id = r.client_id and caller.disabled_at is null and caller.deleted_at is null
  left join token_family f on f.id = r.family_id
  left join lateral (
    select
      f.lineage_digest, f.generation, f.current_digest, f.previous_digest, f.successor_salt,
      f.rotated_at, f.retry_until
    where r.is_refresh_token
  ) l on true
  left join client c on c.key = f.client_key
  left join resource_owner o on o.id = f.resource_owner_id
  left join access_token a on a.family_id = r.family_id and a.digest = r.access_token_digest
  where not pg_is_in_recovery()`,
};

/**
 * Starts a family for a resource owner whose credentials are still those that were verified.
 *
 * `for share` waits for a password change or a disable in flight and then sees its outcome; those
 * update the owner first and revoke families in a second statement, which sees this family.
 * Instants of expiry are whole seconds: a token dies at the very `exp` that introspection announces.
 * The person's oldest families above the limit end in the same statement.
 *
 * Indexes: resource_owner_pkey, token_family_resource_owner_id_started_at_index, token_family_pkey.
 */
export const startFamilyStatement: Statement = {
  name: 'heirloom-start-family',
  text: `
  with owner as materialized (
    select id from resource_owner
    where id = $1 and credential_version = $2 and disabled_at is null
    for share
  ), instant as materialized (
    select now, date_trunc('second', now) as second from clock_timestamp() as now
  ), family as (
    insert into token_family (
      id, lineage_digest, current_digest, client_key, resource_owner_id, scope, audience,
      started_at, idle_expires_at, expires_at, device_label, user_agent, address
    )
    select
      $3, $4, $5, $6, owner.id, $7, $8,
      i.now,
      least(i.second + $10 * interval '1 second', i.second + $11 * interval '1 second'),
      i.second + $11 * interval '1 second',
      $13, $14, $15
    from owner cross join instant i
    returning id, expires_at, idle_expires_at
  ), token as (
    insert into access_token (family_id, digest, scope, issued_at, expires_at)
    select
      family.id, $9, $7, i.now,
      least(i.second + $12 * interval '1 second', family.expires_at)
    from family cross join instant i
    returning
      extract(epoch from expires_at - date_trunc('second', issued_at))::int as expires_in_seconds
  ), ended as (
    update token_family f set revoked_at = i.now, revocation_reason = 'session_limit'
    from owner cross join instant i
    where f.id = any (array(
      select older.id from token_family older
      where older.resource_owner_id = $1 and older.revoked_at is null
        and least(older.expires_at, older.idle_expires_at) > (select now from instant)
      order by older.started_at desc offset $16
    ))
  )
  select
    token.expires_in_seconds,
    floor(extract(epoch from family.idle_expires_at - i.now))::int as refresh_expires_in_seconds
  from token cross join family cross join instant i`,
};

/**
 * Takes the lock of one family before a statement that could not get it without waiting.
 *
 * Index: token_family_pkey.
 */
export const lockFamilyStatement: Statement = {
  name: 'heirloom-lock-family',
  text: 'select from token_family where id = $1 for no key update',
};

/** Access tokens of one family; the one that is being issued is not yet among those that are kept. */
const MAXIMUM_ACCESS_TOKENS_PER_FAMILY = 16;

/** Issuing deletes the family's expired access tokens and, above the limit, the oldest. */
const trimAccessTokens = (issuedTo: 'rotated' | 'family'): string => `
    delete from access_token a using ${issuedTo} cross join instant i
    where a.family_id = ${issuedTo}.id and (
      a.expires_at <= i.now
      or a.digest in (
        select kept.digest from access_token kept
        where kept.family_id = ${issuedTo}.id and kept.expires_at > i.now
        order by kept.issued_at desc offset ${MAXIMUM_ACCESS_TOKENS_PER_FAMILY - 1}
      )
    )`;

/**
 * Rotates: compare-and-set of the current digest, and the access token that comes with it.
 *
 * Locks are taken in id order and never waited for, so statements cannot block each other in a
 * circle. A family whose lock was taken by somebody else answers `not_locked`, one that changed since
 * it was read `lost`.
 *
 * Indexes: token_family_pkey, client_pkey, server_state_pkey, resource_owner_pkey, access_token_pkey.
 */
export const rotateStatement: Statement = {
  name: 'heirloom-rotate',
  text: `
  with request as materialized (
    select * from unnest(
      $1::int[], $2::uuid[], $3::bytea[], $4::bytea[], $5::bytea[],
      $6::bytea[], $7::text[], $8::int[], $9::int[], $10::int[]
    ) as r(
      ordinal, family_id, presented_digest, successor_digest, successor_salt,
      access_digest, access_scope, access_lifetime, idle_lifetime, retry_window
    )
  ), locked as materialized (
    select f.id from token_family f
    where f.id = any ($2)
    order by f.id
    for no key update skip locked
  ), instant as materialized (
    select now, date_trunc('second', now) as second from clock_timestamp() as now
  ), rotated as (
    update token_family f set
      generation = f.generation + 1,
      previous_digest = f.current_digest,
      current_digest = r.successor_digest,
      successor_salt = r.successor_salt,
      rotated_at = i.now,
      retry_until = i.now + r.retry_window * interval '1 second',
      idle_expires_at = least(i.second + r.idle_lifetime * interval '1 second', f.expires_at)
    from request r
    join locked l on l.id = r.family_id
    cross join instant i
    join server_state s on s.id = 1
    where f.id = r.family_id
      and f.current_digest = r.presented_digest
      and f.idle_expires_at > i.now
      and ${familyIsAlive}
    returning
      r.ordinal, f.id, f.expires_at, f.idle_expires_at, r.access_digest, r.access_scope, r.access_lifetime
  ), issued as (
    insert into access_token (family_id, digest, scope, issued_at, expires_at)
    select
      rotated.id, access_digest, access_scope, i.now,
      least(i.second + access_lifetime * interval '1 second', rotated.expires_at)
    from rotated cross join instant i
    returning
      family_id,
      extract(epoch from expires_at - date_trunc('second', issued_at))::int as expires_in_seconds
  ), trimmed as (${trimAccessTokens('rotated')})
  select
    r.ordinal, issued.expires_in_seconds,
    floor(extract(epoch from rotated.idle_expires_at - i.now))::int as refresh_expires_in_seconds,
    case
      when rotated.id is not null then 'rotated'
      when l.id is not null then 'lost'
      else 'not_locked'
    end as outcome
  from request r
  cross join instant i
  left join locked l on l.id = r.family_id
  left join rotated on rotated.ordinal = r.ordinal
  left join issued on issued.family_id = rotated.id`,
};

/**
 * Issues an access token beside the current refresh token, for a retry whose derived one is gone.
 * Runs after `lockFamilyStatement` in the same transaction.
 *
 * Indexes: as `rotateStatement`.
 */
export const issueAdditionalStatement: Statement = {
  name: 'heirloom-issue-additional',
  text: `
  with instant as materialized (
    select now, date_trunc('second', now) as second from clock_timestamp() as now
  ), family as materialized (
    select f.id, f.expires_at, f.idle_expires_at
    from token_family f
    join server_state s on s.id = 1
    cross join instant i
    where f.id = $1 and f.current_digest = $2 and ${familyIsAlive}
  ), issued as (
    insert into access_token (family_id, digest, scope, issued_at, expires_at)
    select
      family.id, $3, $4, i.now,
      least(i.second + $5 * interval '1 second', family.expires_at)
    from family cross join instant i
    returning
      extract(epoch from expires_at - date_trunc('second', issued_at))::int as expires_in_seconds
  ), trimmed as (${trimAccessTokens('family')})
  select
    issued.expires_in_seconds,
    floor(extract(epoch from family.idle_expires_at - i.now))::int as refresh_expires_in_seconds
  from issued cross join family cross join instant i`,
};

/**
 * Ends a family, with the event that explains it. Answers a row if this call ended it.
 *
 * Whoever has run `listen heirloom_security_event` is told when the event is durable.
 *
 * Index: token_family_pkey.
 */
export const revokeFamilyStatement: Statement = {
  name: 'heirloom-revoke-family',
  text: `
  with ended as (
    update token_family set revoked_at = clock_timestamp(), revocation_reason = $2
    where id = $1 and revoked_at is null
    returning id, resource_owner_id, address
  ), event as (
    insert into security_event (kind, family_id, client_id, subject, address, family_address)
    select $3, id, $4, resource_owner_id, $5, address from ended where $3::text is not null
    returning pg_notify('heirloom_security_event', to_jsonb(security_event)::text)
  )
  select address from ended left join event on true`,
};

/**
 * Revokes one access token. Answers a row if this call revoked it.
 *
 * Index: access_token_pkey.
 */
export const revokeAccessTokenStatement: Statement = {
  name: 'heirloom-revoke-access-token',
  text: `
  update access_token set revoked_at = clock_timestamp()
  where family_id = $1 and digest = $2 and revoked_at is null
  returning digest`,
};
