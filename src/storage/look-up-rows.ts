/** Rows of `lookUpStatement`, and what the protocol makes of them. */
import type {
  Client,
  ClientType,
  GrantType,
  IntrospectionRight,
  RefreshTokenDelivery,
  TokenLifetimes,
} from '../oauth/client.ts';
import type { AccessToken, LookUp, LookUpRequest } from '../oauth/ports.ts';
import { parseScope } from '../oauth/scope.ts';
import type { FamilyLineage, TokenFamily } from '../oauth/token-family.ts';
import type { OrdinalRow } from './coalescer.ts';
import { remembering } from './column-types.ts';

/** Few scopes are granted, to many. */
const scopeOf = remembering(parseScope);

/** One row: what is null was not asked for or does not exist. Instants are milliseconds since 1970. */
export interface LookUpRow extends OrdinalRow {
  now: number;
  pulse_at: number;
  outage_began_at: number | null;
  resumed_at: number | null;
  caller_key: number | null;
  caller_client_id: string;
  client_type: ClientType;
  grant_types: GrantType[];
  caller_scope: string[];
  introspection_right: IntrospectionRight;
  caller_audience: string[];
  caller_origins: string[];
  delivery: RefreshTokenDelivery;
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
  rotated_at: number | null;
  retry_until: number | null;
  started_at: number;
  idle_expires_at: number;
  family_expires_at: number;
  family_revoked_at: number | null;
  sessions_valid_after: number | null;
  is_suspended: boolean;
  access_token_digest: Buffer | null;
  access_token_scope: string;
  issued_at: number;
  access_token_expires_at: number;
  access_token_revoked_at: number | null;
}

/** What the database said to one request of a batch. */
export interface OrdinalLookUp extends OrdinalRow {
  readonly lookUp: LookUp;
}

/**
 * The bind parameters of a batch: an array per column.
 *
 * Most requests of a batch come from the same few resource servers, so a client is read for the first
 * request that names it. The row is shared and nothing else: each request proves itself against it.
 */
export function lookUpValues(requests: readonly LookUpRequest[]): unknown[] {
  const readers = readersOf(requests);
  return [
    requests.map((_, position) => position + 1),
    requests.map(({ clientId }, position) =>
      clientId !== undefined && readers.get(clientId) === position + 1 ? clientId : null,
    ),
    requests.map(({ token }) => token?.familyId ?? null),
    requests.map(({ token }) => token?.kind === 'refresh_token'),
    requests.map(({ token, accessTokenDigest }) => {
      if (accessTokenDigest !== undefined) return accessTokenDigest;
      return token?.kind === 'access_token' ? token.secretDigest : null;
    }),
  ];
}

/** The ordinal of the request whose row holds a client, by client id. */
function readersOf(requests: readonly LookUpRequest[]): Map<string, number> {
  const readers = new Map<string, number>();
  requests.forEach(({ clientId }, position) => {
    if (clientId !== undefined && !readers.has(clientId)) readers.set(clientId, position + 1);
  });
  return readers;
}

/**
 * Reads the answer to a batch. A request whose client was on a row that is missing or repeated gets no
 * answer, like the one that row was for.
 *
 * @param defaults lifetimes of clients that were registered without their own
 */
export function lookUpsFromRows(
  requests: readonly LookUpRequest[],
  rows: readonly LookUpRow[],
  defaults: TokenLifetimes,
): OrdinalLookUp[] {
  const readers = readersOf(requests);
  const clients = new Map<number, { readonly client: Client | undefined } | undefined>();
  const readerOf = (ordinal: number): number | undefined => {
    const clientId = requests[ordinal - 1]?.clientId;
    return clientId === undefined ? undefined : readers.get(clientId);
  };
  for (const row of rows) {
    if (readerOf(row.ordinal) !== row.ordinal) continue;
    const client = { client: clientFromRow(row, defaults) };
    clients.set(row.ordinal, clients.has(row.ordinal) ? undefined : client);
  }
  return rows.flatMap((row) => {
    const reader = readerOf(row.ordinal);
    const caller = reader === undefined ? { client: undefined } : clients.get(reader);
    if (caller === undefined) return [];
    return [{ ordinal: row.ordinal, lookUp: lookUpFromRow(row, caller.client) }];
  });
}

function lookUpFromRow(row: LookUpRow, client: Client | undefined): LookUp {
  return {
    now: new Date(row.now),
    client,
    family: row.family_id === null ? undefined : familyFromRow(row, row.family_id),
    accessToken: row.access_token_digest === null ? undefined : accessTokenFromRow(row),
    pulse: {
      pulseAt: new Date(row.pulse_at),
      lastOutage:
        row.outage_began_at && row.resumed_at
          ? { beganAt: new Date(row.outage_began_at), resumedAt: new Date(row.resumed_at) }
          : undefined,
    },
  };
}

function clientFromRow(row: LookUpRow, defaults: TokenLifetimes): Client | undefined {
  const { caller_key: key } = row;
  if (key === null) return undefined;
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
    origins: row.caller_origins,
    delivery: row.delivery,
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
    scope: scopeOf(row.family_scope),
    audience: row.family_audience,
    lineage: lineageFromRow(row),
    startedAt: new Date(row.started_at),
    idleExpiresAt: new Date(row.idle_expires_at),
    expiresAt: new Date(row.family_expires_at),
    revokedAt: instantOf(row.family_revoked_at),
    sessionsValidAfter: instantOf(row.sessions_valid_after),
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
          rotatedAt: new Date(rotated_at),
          retryUntil: new Date(retry_until),
        }
      : undefined,
  };
}

const accessTokenFromRow = (row: LookUpRow): AccessToken => ({
  scope: scopeOf(row.access_token_scope),
  issuedAt: new Date(row.issued_at),
  expiresAt: new Date(row.access_token_expires_at),
  revokedAt: instantOf(row.access_token_revoked_at),
});

const instantOf = (milliseconds: number | null): Date | undefined =>
  milliseconds === null ? undefined : new Date(milliseconds);
