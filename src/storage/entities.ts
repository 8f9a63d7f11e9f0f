/**
 * The tables, as MikroORM knows them. What the mapper cannot say (fill factors) is in the migration.
 *
 * All instants are `timestamptz`. Secrets are here as SHA-256 digests or argon2id hashes only.
 */
import { defineEntity, p } from '@mikro-orm/postgresql';
import {
  type ClientType,
  type GrantType,
  type IntrospectionRight,
  MAXIMUM_RETRY_WINDOW_SECONDS,
  type RefreshTokenDelivery,
} from '../oauth/client.ts';
import type { RevocationReason } from '../oauth/ports.ts';
import { MAXIMUM_ACCESS_TOKENS_PER_FAMILY } from './hot-statements.ts';

const instant = () => p.datetime().columnType('timestamptz');
const sha256 = () => p.blob();
const isSha256 = (column: string) => ({ expression: `octet_length(${column}) = 32` });

/** A registered client. `deleted_at` keeps the row until its last family is pruned. */
export const ClientEntity = defineEntity({
  name: 'Client',
  tableName: 'client',
  properties: {
    key: p.integer().primary().autoincrement(),
    // Every request looks its client up by this index; a deleted client's name is not given again.
    clientId: p.text().unique('client_client_id_unique'),
    clientType: p.text().$type<ClientType>(),
    grantTypes: p.array().$type<GrantType[]>(),
    scope: p.array().$type<string[]>(),
    introspectionRight: p.text().$type<IntrospectionRight>(),
    audience: p.array().$type<string[]>(),
    origins: p.array().$type<string[]>(),
    delivery: p.text().$type<RefreshTokenDelivery>(),
    // Null means the server's default, so that changing the default reaches every client.
    accessTokenLifetimeSeconds: p.integer().nullable(),
    refreshTokenIdleLifetimeSeconds: p.integer().nullable(),
    refreshTokenLifetimeSeconds: p.integer().nullable(),
    retryWindowSeconds: p.integer().nullable(),
    createdAt: instant().defaultRaw('clock_timestamp()'),
    disabledAt: instant().nullable(),
    /** Cut-off: families started at or before it are dead. One row ends all sessions of a client. */
    sessionsValidAfter: instant().nullable(),
    deletedAt: instant().nullable(),
    /** Demo rows have known secrets; a server with DATABASE_URL refuses to start on them. */
    isDemo: p.boolean().default(false),
    secrets: () => p.oneToMany(ClientSecretEntity).mappedBy('client'),
  },
  checks: [
    { name: 'client_client_type', expression: "client_type in ('confidential', 'public')" },
    { name: 'client_introspection', expression: "introspection_right in ('none', 'own', 'any')" },
    { name: 'client_delivery', expression: "delivery in ('body', 'cookie')" },
    // The pulse forgets an outage only when no longer window can be open.
    {
      name: 'client_retry_window',
      expression: `retry_window_seconds >= 0 and retry_window_seconds <= ${MAXIMUM_RETRY_WINDOW_SECONDS}`,
    },
    // RFC 7662 §4: whoever introspects must authenticate, and a public client cannot.
    {
      name: 'client_public_introspects_nothing',
      expression: "client_type = 'confidential' or introspection_right = 'none'",
    },
  ],
});

/** A client's secret; two can live at once, so that one can be rotated with no downtime. */
export const ClientSecretEntity = defineEntity({
  name: 'ClientSecret',
  tableName: 'client_secret',
  // Secrets are read by their client with every authentication, by the leading column of this key.
  primaryKeys: ['client', 'digest'],
  properties: {
    client: () =>
      p.manyToOne(ClientEntity).primary().joinColumn('client_key').deleteRule('cascade'),
    digest: sha256().primary(),
    createdAt: instant().defaultRaw('clock_timestamp()'),
    expiresAt: instant().nullable(),
    /** Tells when an old secret can be retired; written at most once a minute. */
    lastUsedAt: instant().nullable(),
  },
  // Anything else could never be the digest of what a client shows.
  checks: [{ name: 'client_secret_digest', ...isSha256('digest') }],
});

/** A person who can log in. */
export const ResourceOwnerEntity = defineEntity({
  name: 'ResourceOwner',
  tableName: 'resource_owner',
  indexes: [
    // Every check of a token asks whether its person is disabled. Few are, so this index is tiny and the
    // answer needs no person's row.
    {
      name: 'resource_owner_disabled_index',
      properties: ['subject'],
      where: 'disabled_at is not null',
    },
  ],
  properties: {
    /** `sub`: random, so that it is never given to anybody else. */
    subject: p.uuid().primary().fieldName('id').defaultRaw('gen_random_uuid()'),
    // Logins find people by this index. The text is normalised: NFC and lower case.
    username: p.text().unique('resource_owner_username_unique'),
    passwordHash: p.text().nullable().hidden(),
    /** Moves with every password change, disable and enable; a login in flight re-checks it. */
    credentialVersion: p.integer().default(0),
    createdAt: instant().defaultRaw('clock_timestamp()'),
    disabledAt: instant().nullable(),
    isDemo: p.boolean().default(false),
  },
});

/**
 * One grant and every token that descends from it: one row, updated in place.
 *
 * "At most one live refresh token per family" is therefore a column, not a discipline. No index covers
 * a column that rotation changes, so that rotation is a heap-only update.
 */
export const TokenFamilyEntity = defineEntity({
  name: 'TokenFamily',
  tableName: 'token_family',
  indexes: [
    // Sessions of one person: listing, ending all of them, ending the oldest above the limit.
    {
      name: 'token_family_resource_owner_id_started_at_index',
      properties: ['resourceOwner', 'startedAt'],
    },
    // Tells whether a deleted client has a family left, and lists a client's sessions.
    { name: 'token_family_client_key_index', properties: ['client'] },
    // Pruning walks families in the order in which they expire.
    { name: 'token_family_expires_at_index', properties: ['expiresAt'] },
  ],
  properties: {
    /** 128 random bits, the leading bytes of every token of the family; public and proves nothing. */
    familyId: p.uuid().primary().fieldName('id'),
    lineageDigest: sha256().nullable(),
    generation: p.integer().default(0),
    currentDigest: sha256().nullable(),
    previousDigest: sha256().nullable(),
    successorSalt: p.blob().nullable(),
    rotatedAt: instant().nullable(),
    retryUntil: instant().nullable(),
    // No delete rule: a client's row outlives its families, which is what keeps them revoked.
    client: () => p.manyToOne(ClientEntity).joinColumn('client_key').deleteRule('no action'),
    // Deleting a person deletes their sessions, so that nothing refers to a `sub` that is gone.
    resourceOwner: () => p.manyToOne(ResourceOwnerEntity).nullable().deleteRule('cascade'),
    scope: p.text(),
    audience: p.array().$type<string[]>(),
    startedAt: instant(),
    idleExpiresAt: instant(),
    expiresAt: instant(),
    /** Never unset. The row stays, revoked, until it expires. */
    revokedAt: instant().nullable(),
    revocationReason: p.text().$type<RevocationReason>().nullable(),
    deviceLabel: p.text().nullable(),
    userAgent: p.text().nullable(),
    address: p.text().nullable(),
    /**
     * The access tokens that may still be good, newest first: digest, scope, `issued_at`, `expires_at`. In
     * the row itself, so that checking one finds its family with it and issuing one writes nothing else;
     * a token lives only while its family does.
     */
    accessTokens: p
      .unknown()
      .columnType('issued_access_token[]')
      .defaultRaw(`'{}'`)
      // Only the hot statements read it.
      .lazy(),
  },
  checks: [
    // What one row can grow to, however often a family is refreshed.
    {
      name: 'token_family_access_tokens',
      expression: `cardinality(access_tokens) <= ${MAXIMUM_ACCESS_TOKENS_PER_FAMILY}`,
    },
    // A family either refreshes or does not, and a rotation is recorded whole.
    {
      name: 'token_family_lineage',
      expression: 'num_nulls(lineage_digest, current_digest) in (0, 2)',
    },
    {
      name: 'token_family_rotation',
      expression:
        'num_nulls(previous_digest, successor_salt, rotated_at, retry_until) = case when generation = 0 then 4 else 0 end',
    },
    // Whoever finds a session ended can be told why.
    {
      name: 'token_family_revocation',
      expression: 'num_nulls(revoked_at, revocation_reason) in (0, 2)',
    },
  ],
});

/** The one row that all instances share: the global cut-off and the service pulse. */
export const ServerStateEntity = defineEntity({
  name: 'ServerState',
  tableName: 'server_state',
  properties: {
    id: p.integer().primary().autoincrement(false),
    /** Cut-off for everybody: one statement ends all sessions after a restore or a leak. */
    sessionsValidAfter: instant().nullable(),
    pulseAt: instant().defaultRaw('clock_timestamp()'),
    outageBeganAt: instant().nullable(),
    resumedAt: instant().nullable(),
    /** Keys the buckets that unknown names share, or anybody could work out who is in whose. */
    nameKey: p.uuid().defaultRaw('gen_random_uuid()'),
  },
  checks: [
    // Every reader asks for the row by this key; a second one would be a cut-off that nobody sees.
    { name: 'server_state_one_row', expression: 'id = 1' },
    // An outage has a beginning and an end, or there was none.
    {
      name: 'server_state_outage',
      expression: 'num_nulls(outage_began_at, resumed_at) in (0, 2)',
    },
  ],
});

/**
 * Failed credentials of one kind: an account's, a network's, both together's, or a client's on a network.
 * Holds no names: a key is a kind and a digest, and unknown names share a fixed number of them.
 */
export const FailureCounterEntity = defineEntity({
  name: 'FailureCounter',
  tableName: 'failure_counter',
  // Pruning deletes counters in the order in which they expire.
  indexes: [{ name: 'failure_counter_expires_at_index', properties: ['expiresAt'] }],
  properties: {
    key: p.blob().primary(),
    failures: p.bigint(),
    /** From here on the row counts as absent. */
    expiresAt: instant(),
    /** An account that is being guessed: when the next stranger may try. */
    throttledUntil: instant().nullable(),
  },
  // A byte for the kind, which orders the locks, and half a SHA-256.
  checks: [{ name: 'failure_counter_key', expression: 'octet_length(key) = 17' }],
});

/** Where a person has logged in from lately: /24 or /64. Whoever guesses elsewhere cannot lock these out. */
export const FamiliarNetworkEntity = defineEntity({
  name: 'FamiliarNetwork',
  tableName: 'familiar_network',
  // Pruning forgets networks in the order in which they were last used.
  indexes: [{ name: 'familiar_network_last_login_at_index', properties: ['lastLoginAt'] }],
  properties: {
    resourceOwner: () => p.manyToOne(ResourceOwnerEntity).primary().deleteRule('cascade'),
    network: p.text().primary(),
    lastLoginAt: instant(),
  },
});

/** Something that somebody should look at. Holds no token material. */
export const SecurityEventEntity = defineEntity({
  name: 'SecurityEvent',
  tableName: 'security_event',
  indexes: [
    // Read newest first, and pruned oldest first.
    { name: 'security_event_occurred_at_index', properties: ['occurredAt'] },
  ],
  properties: {
    id: p.bigint().primary().autoincrement(),
    occurredAt: instant().defaultRaw('clock_timestamp()'),
    kind: p.text(),
    // Plain values, not references: an event outlives the family, the client and the person.
    familyId: p.uuid().nullable(),
    clientId: p.text().nullable(),
    subject: p.uuid().nullable(),
    address: p.text().nullable(),
    /** Where the family was started from, to compare with `address`. */
    familyAddress: p.text().nullable(),
  },
});

export const entities = [
  ClientEntity,
  ClientSecretEntity,
  ResourceOwnerEntity,
  TokenFamilyEntity,
  ServerStateEntity,
  SecurityEventEntity,
  FailureCounterEntity,
  FamiliarNetworkEntity,
];
