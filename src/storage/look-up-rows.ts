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
import { boolArray, byteaArray, textArray, uuidArray } from './binary-array.ts';
import type { OrdinalRow } from './coalescer.ts';
import { remembering } from './column-types.ts';

/** Few scopes are granted, to many. */
const scopeOf = remembering(parseScope);

/** One row. Everything but the ordinal is a JSON array; null is what was not asked for or does not exist. */
export interface LookUpRow extends OrdinalRow {
  /** `ServiceColumns`, the same in every row of an answer. */
  instants: string;
  /** `ClientColumns` of the calling client, in the row of the first request that names it. */
  caller: string | null;
  /** `FamilyColumns`. */
  family: string | null;
  /** `LineageColumns`, for a refresh token only. */
  lineage: string | null;
  /** `AccessTokenColumns`. */
  access_token: string | null;
}

/** Milliseconds since 1970. */
type Instant = number;

/** `bytea` as text: `\x` and hexadecimal digits. */
type Bytes = string;

type ServiceColumns = [
  now: Instant,
  pulseAt: Instant,
  outageBeganAt: Instant | null,
  resumedAt: Instant | null,
];

type ClientColumns = [
  key: number,
  clientId: string,
  clientType: ClientType,
  grantTypes: GrantType[],
  scope: string[],
  introspectionRight: IntrospectionRight,
  audience: string[],
  origins: string[],
  delivery: RefreshTokenDelivery,
  secretDigests: Bytes[] | null,
  ...lifetimes: [
    accessTokenSeconds: number | null,
    refreshTokenIdleSeconds: number | null,
    refreshTokenSeconds: number | null,
    retryWindowSeconds: number | null,
  ],
];

type FamilyColumns = [
  familyId: string,
  clientKey: number,
  clientId: string,
  resourceOwnerId: string | null,
  scope: string,
  audience: string[],
  startedAt: Instant,
  idleExpiresAt: Instant,
  expiresAt: Instant,
  revokedAt: Instant | null,
  sessionsValidAfter: Instant | null,
  isSuspended: boolean,
];

/** Of a digest, and of a salt. */
const DIGEST_BYTES = 32;

type LineageColumns = [
  /** Digests of the lineage and of the current token; after a rotation the previous digest and the salt. */
  bytes: Bytes,
  generation: number,
  rotatedAt: Instant | null,
  retryUntil: Instant | null,
  place: string,
];

type AccessTokenColumns = [scope: string, issuedAt: Instant, expiresAt: Instant];

/** What the database said to one request of a batch. */
export interface OrdinalLookUp extends OrdinalRow {
  readonly lookUp: LookUp;
}

/**
 * The bind parameters of a batch: an array per column, in the order of the requests.
 *
 * Most requests of a batch come from the same few resource servers, so a client is read for the first
 * request that names it. The row is shared and nothing else: each request proves itself against it.
 */
export function lookUpValues(requests: readonly LookUpRequest[]): unknown[] {
  const readers = readersOf(requests);
  return [
    textArray(
      requests.map(({ clientId }, position) =>
        clientId !== undefined && readers.get(clientId) === position + 1 ? clientId : null,
      ),
    ),
    uuidArray(requests.map(({ token }) => token?.familyId ?? null)),
    boolArray(requests.map(({ token }) => token?.kind === 'refresh_token')),
    byteaArray(
      requests.map(({ token, accessTokenDigest }) => {
        if (accessTokenDigest !== undefined) return accessTokenDigest;
        return token?.kind === 'access_token' ? token.secretDigest : null;
      }),
    ),
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
  for (const { ordinal, caller } of rows) {
    if (readerOf(ordinal) !== ordinal) continue;
    const client = { client: caller === null ? undefined : clientFrom(caller, defaults) };
    clients.set(ordinal, clients.has(ordinal) ? undefined : client);
  }
  const serviceOf = remembering(serviceFrom);
  return rows.flatMap((row) => {
    const reader = readerOf(row.ordinal);
    const caller = reader === undefined ? { client: undefined } : clients.get(reader);
    if (caller === undefined) return [];
    const lookUp: LookUp = {
      ...serviceOf(row.instants),
      client: caller.client,
      family: row.family === null ? undefined : familyFrom(row.family, row.lineage),
      accessToken: row.access_token === null ? undefined : accessTokenFrom(row.access_token),
    };
    return [{ ordinal: row.ordinal, lookUp }];
  });
}

function serviceFrom(json: string): Pick<LookUp, 'now' | 'pulse'> {
  const [now, pulseAt, beganAt, resumedAt] = JSON.parse(json) as ServiceColumns;
  const lastOutage =
    beganAt !== null && resumedAt !== null
      ? { beganAt: new Date(beganAt), resumedAt: new Date(resumedAt) }
      : undefined;
  return { now: new Date(now), pulse: { pulseAt: new Date(pulseAt), lastOutage } };
}

function clientFrom(json: string, defaults: TokenLifetimes): Client {
  const [
    key,
    clientId,
    clientType,
    grantTypes,
    scope,
    introspectionRight,
    audience,
    origins,
    delivery,
    secretDigests,
    ...lifetimes
  ] = JSON.parse(json) as ClientColumns;
  return {
    key,
    clientId,
    clientType,
    grantTypes: new Set(grantTypes),
    scope: new Set(scope),
    introspectionRight,
    audience,
    origins,
    delivery,
    secretDigests: (secretDigests ?? []).map(bytesFrom),
    lifetimes: lifetimesFrom(lifetimes, defaults),
  };
}

function lifetimesFrom(
  [accessToken, refreshTokenIdle, refreshToken, retryWindow]: (number | null)[],
  defaults: TokenLifetimes,
): TokenLifetimes {
  const accessTokenLifetimeSeconds = accessToken ?? defaults.accessTokenLifetimeSeconds;
  return {
    accessTokenLifetimeSeconds,
    refreshTokenIdleLifetimeSeconds: refreshTokenIdle ?? defaults.refreshTokenIdleLifetimeSeconds,
    refreshTokenLifetimeSeconds: refreshToken ?? defaults.refreshTokenLifetimeSeconds,
    // One of the two may be the client's own and the other the default.
    retryWindowSeconds: Math.min(
      retryWindow ?? defaults.retryWindowSeconds,
      accessTokenLifetimeSeconds - 1,
    ),
  };
}

function familyFrom(json: string, lineage: string | null): TokenFamily {
  const [
    familyId,
    clientKey,
    clientId,
    resourceOwnerId,
    scope,
    audience,
    startedAt,
    idleExpiresAt,
    expiresAt,
    revokedAt,
    sessionsValidAfter,
    isSuspended,
  ] = JSON.parse(json) as FamilyColumns;
  return {
    familyId,
    clientKey,
    clientId,
    subject: resourceOwnerId ?? undefined,
    scope: scopeOf(scope),
    audience,
    lineage: lineage === null ? undefined : lineageFrom(lineage),
    startedAt: new Date(startedAt),
    idleExpiresAt: new Date(idleExpiresAt),
    expiresAt: new Date(expiresAt),
    revokedAt: dateFrom(revokedAt),
    sessionsValidAfter: dateFrom(sessionsValidAfter),
    isSuspended,
  };
}

function lineageFrom(json: string): FamilyLineage | undefined {
  const [text, generation, rotatedAt, retryUntil, place] = JSON.parse(json) as LineageColumns;
  const bytes = bytesFrom(text);
  const isRotated = rotatedAt !== null && retryUntil !== null;
  // In damaged bytes one digest could pass for another, so there is nothing to compare with.
  if (bytes.length !== (isRotated ? 4 : 2) * DIGEST_BYTES) return undefined;
  const part = (index: number) => bytes.subarray(index * DIGEST_BYTES, (index + 1) * DIGEST_BYTES);
  return {
    lineageDigest: part(0),
    generation,
    currentDigest: part(1),
    rotation: isRotated
      ? {
          previousDigest: part(2),
          successorSalt: part(3),
          rotatedAt: new Date(rotatedAt),
          retryUntil: new Date(retryUntil),
        }
      : undefined,
    place,
  };
}

function accessTokenFrom(json: string): AccessToken {
  const [scope, issuedAt, expiresAt] = JSON.parse(json) as AccessTokenColumns;
  return {
    scope: scopeOf(scope),
    issuedAt: new Date(issuedAt),
    expiresAt: new Date(expiresAt),
  };
}

const dateFrom = (instant: Instant | null): Date | undefined =>
  instant === null ? undefined : new Date(instant);

const bytesFrom = (text: Bytes): Buffer => Buffer.from(text.slice(2), 'hex');
