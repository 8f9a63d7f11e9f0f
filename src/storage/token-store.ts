/** Token families and access tokens in PostgreSQL. Implements `TokenStore`. */
import type {
  Client,
  ClientType,
  GrantType,
  IntrospectionRight,
  TokenLifetimes,
} from '../oauth/client.ts';
import { TemporarilyUnavailable } from '../oauth/errors.ts';
import type {
  AccessToken,
  IssueOutcome,
  LookUp,
  LookUpRequest,
  TokenStore,
} from '../oauth/ports.ts';
import { formatScope, parseScope } from '../oauth/scope.ts';
import {
  type FamilyLineage,
  OUTAGE_AFTER_SECONDS,
  type TokenFamily,
} from '../oauth/token-family.ts';
import type { Database } from './database.ts';
import {
  issueAdditionalStatement,
  lockFamilyStatement,
  lookUpStatement,
  noteSecretUseStatement,
  pulseStatement,
  recordSecurityEventStatement,
  revokeAccessTokenStatement,
  revokeFamilyStatement,
  rotateStatement,
  startFamilyStatement,
} from './hot-statements.ts';

/** Live families of one person; a login above it ends the oldest. */
export const MAXIMUM_FAMILIES_PER_RESOURCE_OWNER = 100;

/** The ordinal of a batch of one. */
const ONLY = 1;

/**
 * Builds the store.
 *
 * @param defaults lifetimes of clients that were registered without their own
 */
export function createTokenStore(database: Database, defaults: TokenLifetimes): TokenStore {
  /** Bounded by the number of client secrets. */
  const secretNotedAt = new Map<string, number>();
  return {
    async lookUp(request) {
      const rows = await database.run<LookUpRow>(lookUpStatement, lookUpValues(request));
      return lookUpFromRow(answerTo(ONLY, rows), defaults);
    },

    async startFamily({ familyId, client, resourceOwner, scope, refreshToken, ...family }) {
      const { lifetimes } = client;
      const rows = await database.run<ExpiresInRow>(startFamilyStatement, [
        resourceOwner.subject,
        resourceOwner.credentialVersion,
        familyId,
        refreshToken?.lineageDigest ?? null,
        refreshToken?.digest ?? null,
        client.key,
        formatScope(scope),
        client.audience,
        family.accessTokenDigest,
        lifetimes.refreshTokenIdleLifetimeSeconds,
        lifetimes.refreshTokenLifetimeSeconds,
        lifetimes.accessTokenLifetimeSeconds,
        family.origin.deviceLabel ?? null,
        family.origin.userAgent ?? null,
        family.origin.address,
        MAXIMUM_FAMILIES_PER_RESOURCE_OWNER - 1,
      ]);
      return issuedOrLost(rows);
    },

    async rotate(rotation) {
      const { client, accessToken } = rotation;
      const values = [
        [ONLY],
        [rotation.familyId],
        [rotation.presentedDigest],
        [rotation.successorDigest],
        [rotation.successorSalt],
        [accessToken.digest],
        [formatScope(accessToken.scope)],
        [client.lifetimes.accessTokenLifetimeSeconds],
        [client.lifetimes.refreshTokenIdleLifetimeSeconds],
        [client.lifetimes.retryWindowSeconds],
      ];
      let row = answerTo(ONLY, await database.run<RotateRow>(rotateStatement, values));
      if (row.outcome === 'not_locked') {
        // Somebody else holds the row. Wait for it alone, for as long as the lock timeout allows.
        row = await database.transaction(async (run) => {
          await run(lockFamilyStatement, [rotation.familyId]);
          return answerTo(ONLY, await run<RotateRow>(rotateStatement, values));
        });
      }
      return row.outcome === 'rotated' ? issuedOrLost([row]) : { outcome: 'lost' };
    },

    async issueAdditionalAccessToken({ familyId, client, currentDigest, accessToken }) {
      const rows = await database.transaction(async (run) => {
        await run(lockFamilyStatement, [familyId]);
        return run<ExpiresInRow>(issueAdditionalStatement, [
          familyId,
          currentDigest,
          accessToken.digest,
          formatScope(accessToken.scope),
          client.lifetimes.accessTokenLifetimeSeconds,
        ]);
      });
      return issuedOrLost(rows);
    },

    async revokeFamily(familyId, reason, event) {
      const [row] = await database.run<{ address: string | null }>(revokeFamilyStatement, [
        familyId,
        reason,
        event?.kind ?? null,
        event?.client.clientId ?? null,
        event?.origin.address ?? null,
      ]);
      return row && { address: row.address ?? undefined };
    },

    async revokeAccessToken(familyId, accessTokenDigest) {
      const rows = await database.run(revokeAccessTokenStatement, [familyId, accessTokenDigest]);
      return rows.length > 0;
    },

    recordSecurityEvent({ kind, familyId, client, origin }) {
      const values = [kind, familyId, client.clientId, origin.address];
      database.run(recordSecurityEventStatement, values).catch(() => {});
    },

    async recordPulse() {
      await database.run(pulseStatement, [OUTAGE_AFTER_SECONDS]);
    },

    noteSecretUse(client, secretDigest) {
      const name = `${client.key}:${secretDigest.toString('hex')}`;
      const noted = secretNotedAt.get(name);
      if (noted !== undefined && performance.now() - noted < 60_000) return;
      secretNotedAt.set(name, performance.now());
      // Losing one note loses a minute of precision, so nobody is told.
      database.run(noteSecretUseStatement, [client.key, secretDigest]).catch(() => {});
    },
  };
}

interface LookUpRow {
  ordinal: number;
  now: Date;
  pulse_at: Date;
  outage_began_at: Date | null;
  resumed_at: Date | null;
  caller_key: number | null;
  caller_client_id: string;
  client_type: ClientType;
  grant_types: GrantType[];
  caller_scope: string[];
  introspection_right: IntrospectionRight;
  caller_audience: string[];
  access_token_lifetime_seconds: number | null;
  refresh_token_idle_lifetime_seconds: number | null;
  refresh_token_lifetime_seconds: number | null;
  retry_window_seconds: number | null;
  secret_digests: Buffer[] | null;
  family_id: string | null;
  family_client_key: number;
  family_client_id: string;
  resource_owner_id: string | null;
  family_scope: string;
  family_audience: string[];
  lineage_digest: Buffer | null;
  generation: number;
  current_digest: Buffer | null;
  previous_digest: Buffer | null;
  successor_salt: Buffer | null;
  rotated_at: Date | null;
  retry_until: Date | null;
  started_at: Date;
  idle_expires_at: Date;
  family_expires_at: Date;
  family_revoked_at: Date | null;
  sessions_valid_after: Date | null;
  is_suspended: boolean;
  access_token_digest: Buffer | null;
  access_token_scope: string;
  issued_at: Date;
  access_token_expires_at: Date;
  access_token_revoked_at: Date | null;
}

interface ExpiresInRow {
  expires_in_seconds: number;
}

interface RotateRow extends ExpiresInRow {
  ordinal: number;
  outcome: 'rotated' | 'lost' | 'not_locked';
}

function lookUpValues({ clientId, token, accessTokenDigest }: LookUpRequest): unknown[] {
  const asked =
    accessTokenDigest ?? (token?.kind === 'access_token' ? token.secretDigest : undefined);
  return [[ONLY], [clientId ?? null], [token?.familyId ?? null], [asked ?? null]];
}

/** The one row that answers this request; anything else is our fault and nobody's answer. */
function answerTo<Row extends { ordinal: number }>(ordinal: number, rows: readonly Row[]): Row {
  const [row] = rows;
  if (row === undefined || rows.length !== 1 || row.ordinal !== ordinal) {
    throw new TemporarilyUnavailable('answer of the database does not fit the request');
  }
  return row;
}

const issuedOrLost = ([row]: readonly ExpiresInRow[]): IssueOutcome =>
  row === undefined
    ? { outcome: 'lost' }
    : { outcome: 'issued', accessTokenExpiresInSeconds: row.expires_in_seconds };

function lookUpFromRow(row: LookUpRow, defaults: TokenLifetimes): LookUp {
  return {
    now: row.now,
    client: row.caller_key === null ? undefined : clientFromRow(row, row.caller_key, defaults),
    family: row.family_id === null ? undefined : familyFromRow(row, row.family_id),
    accessToken: row.access_token_digest === null ? undefined : accessTokenFromRow(row),
    pulse: {
      pulseAt: row.pulse_at,
      lastOutage:
        row.outage_began_at && row.resumed_at
          ? { beganAt: row.outage_began_at, resumedAt: row.resumed_at }
          : undefined,
    },
  };
}

function clientFromRow(row: LookUpRow, key: number, defaults: TokenLifetimes): Client {
  return {
    key,
    clientId: row.caller_client_id,
    clientType: row.client_type,
    grantTypes: new Set(row.grant_types),
    scope: new Set(row.caller_scope),
    introspectionRight: row.introspection_right,
    audience: row.caller_audience,
    secretDigests: row.secret_digests ?? [],
    lifetimes: {
      accessTokenLifetimeSeconds:
        row.access_token_lifetime_seconds ?? defaults.accessTokenLifetimeSeconds,
      refreshTokenIdleLifetimeSeconds:
        row.refresh_token_idle_lifetime_seconds ?? defaults.refreshTokenIdleLifetimeSeconds,
      refreshTokenLifetimeSeconds:
        row.refresh_token_lifetime_seconds ?? defaults.refreshTokenLifetimeSeconds,
      retryWindowSeconds: row.retry_window_seconds ?? defaults.retryWindowSeconds,
    },
  };
}

function familyFromRow(row: LookUpRow, familyId: string): TokenFamily {
  return {
    familyId,
    clientKey: row.family_client_key,
    clientId: row.family_client_id,
    subject: row.resource_owner_id ?? undefined,
    scope: parseScope(row.family_scope),
    audience: row.family_audience,
    lineage: lineageFromRow(row),
    startedAt: row.started_at,
    idleExpiresAt: row.idle_expires_at,
    expiresAt: row.family_expires_at,
    revokedAt: row.family_revoked_at ?? undefined,
    sessionsValidAfter: row.sessions_valid_after ?? undefined,
    isSuspended: row.is_suspended,
  };
}

function lineageFromRow(row: LookUpRow): FamilyLineage | undefined {
  if (row.lineage_digest === null || row.current_digest === null) return undefined;
  const { previous_digest, successor_salt, rotated_at, retry_until } = row;
  const isRotated = previous_digest && successor_salt && rotated_at && retry_until;
  return {
    lineageDigest: row.lineage_digest,
    generation: row.generation,
    currentDigest: row.current_digest,
    rotation: isRotated
      ? {
          previousDigest: previous_digest,
          successorSalt: successor_salt,
          rotatedAt: rotated_at,
          retryUntil: retry_until,
        }
      : undefined,
  };
}

const accessTokenFromRow = (row: LookUpRow): AccessToken => ({
  scope: parseScope(row.access_token_scope),
  issuedAt: row.issued_at,
  expiresAt: row.access_token_expires_at,
  revokedAt: row.access_token_revoked_at ?? undefined,
});
