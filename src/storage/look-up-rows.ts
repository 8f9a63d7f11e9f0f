/** Rows of `lookUpStatement`, and what the protocol makes of them. */
import type {
  Client,
  ClientType,
  GrantType,
  IntrospectionRight,
  TokenLifetimes,
} from '../oauth/client.ts';
import type { AccessToken, LookUp, LookUpRequest } from '../oauth/ports.ts';
import { parseScope } from '../oauth/scope.ts';
import type { FamilyLineage, TokenFamily } from '../oauth/token-family.ts';

/** One row: what is null was not asked for or does not exist. */
export interface LookUpRow {
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

/** The bind parameters of a batch: an array per column. */
export const lookUpValues = (requests: readonly LookUpRequest[]): unknown[] => [
  requests.map((_, position) => position + 1),
  requests.map(({ clientId }) => clientId ?? null),
  requests.map(({ token }) => token?.familyId ?? null),
  requests.map(({ token, accessTokenDigest }) => {
    if (accessTokenDigest !== undefined) return accessTokenDigest;
    return token?.kind === 'access_token' ? token.secretDigest : null;
  }),
];

/** @param defaults lifetimes of clients that were registered without their own */
export function lookUpFromRow(row: LookUpRow, defaults: TokenLifetimes): LookUp {
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
  const accessTokenLifetimeSeconds =
    row.access_token_lifetime_seconds ?? defaults.accessTokenLifetimeSeconds;
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
      accessTokenLifetimeSeconds,
      refreshTokenIdleLifetimeSeconds:
        row.refresh_token_idle_lifetime_seconds ?? defaults.refreshTokenIdleLifetimeSeconds,
      refreshTokenLifetimeSeconds:
        row.refresh_token_lifetime_seconds ?? defaults.refreshTokenLifetimeSeconds,
      // One of the two may be the client's own and the other the default.
      retryWindowSeconds: Math.min(
        row.retry_window_seconds ?? defaults.retryWindowSeconds,
        accessTokenLifetimeSeconds - 1,
      ),
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
