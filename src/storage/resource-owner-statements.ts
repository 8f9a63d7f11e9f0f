/**
 * Statements about people that carry password hashes or must run in a fixed order.
 *
 * Bind parameters keep hashes and their salts out of the statement log of the database.
 */
import type { Statement } from './statement.ts';

/**
 * Finds resource owners by normalised name: a row for each name, with nulls where nobody has it.
 *
 * Index: resource_owner_username_unique.
 */
export const findResourceOwnerStatement: Statement = {
  name: 'heirloom-find-resource-owner',
  text: `
  select
    r.ordinal, o.id, o.username, o.password_hash, o.credential_version,
    o.disabled_at is not null as is_disabled
  from unnest($1::int[], $2::text[]) as r(ordinal, username)
  left join resource_owner o on o.username = r.username`,
};

/** Constraint: resource_owner_username_unique. */
export const insertResourceOwnerStatement: Statement = {
  name: 'heirloom-insert-resource-owner',
  text: `
  insert into resource_owner (username, password_hash, is_demo) values ($1, $2, $3)
  returning id, username, password_hash is not null as has_password, created_at, disabled_at`,
};

/**
 * Changes what a login depends on. First of the two steps: it waits for logins in flight, which hold
 * a share lock on the row, and makes those that come later fail their check of the version.
 *
 * Index: resource_owner_username_unique.
 */
const changeCredentials = (name: string, change: string): Statement => ({
  name,
  text: `
  update resource_owner set ${change}, credential_version = credential_version + 1
  where username = $1
  returning id, username, password_hash is not null as has_password, created_at, disabled_at`,
});

export const setPasswordStatement = changeCredentials(
  'heirloom-set-password',
  'password_hash = $2',
);
export const disableStatement = changeCredentials(
  'heirloom-disable',
  'disabled_at = clock_timestamp()',
);
export const enableStatement = changeCredentials('heirloom-enable', 'disabled_at = null');

/**
 * Ends all families of a person. Second of the two steps, a statement of its own in the same READ
 * COMMITTED transaction: only then does it see the families that logins in flight have made.
 *
 * Index: token_family_resource_owner_id_started_at_index.
 */
export const endFamiliesStatement: Statement = {
  name: 'heirloom-end-families-of-resource-owner',
  text: `
  update token_family set revoked_at = clock_timestamp(), revocation_reason = $2
  where resource_owner_id = $1 and revoked_at is null`,
};

/**
 * Replaces a hash by one of the same password. The version stays, and sessions go on.
 *
 * Index: resource_owner_pkey.
 */
export const upgradePasswordHashStatement: Statement = {
  name: 'heirloom-upgrade-password-hash',
  text: `
  update resource_owner set password_hash = $3 where id = $1 and credential_version = $2`,
};
