/** Token families and access tokens in PostgreSQL. Implements `TokenStore`. */
import type { TokenLifetimes } from '../oauth/client.ts';
import { TemporarilyUnavailable } from '../oauth/errors.ts';
import type { IssueOutcome, LookUpRequest, Rotation, TokenStore } from '../oauth/ports.ts';
import { formatScope } from '../oauth/scope.ts';
import { OUTAGE_AFTER_SECONDS } from '../oauth/token-family.ts';
import {
  noteSecretUseStatement,
  pulseStatement,
  recordSecurityEventStatement,
} from './background-statements.ts';
import { byteaArray, int4Array, textArray, tidArray, uuidArray } from './binary-array.ts';
import { createCoalescer, type OrdinalRow } from './coalescer.ts';
import { type Database, isStatementFailure } from './database.ts';
import {
  issueAdditionalStatement,
  lookUpStatement,
  MAXIMUM_ACCESS_TOKENS_PER_FAMILY,
  revokeAccessTokenStatement,
  revokeFamilyStatement,
  rotateStatement,
  startFamilyStatement,
} from './hot-statements.ts';
import {
  type LookUpRow,
  lookUpsFromRows,
  lookUpValues,
  type OrdinalLookUp,
} from './look-up-rows.ts';
import { createRowQueue, type NotLocked } from './row-queue.ts';
import type { Statement } from './statement.ts';

/** Live families of one person; a login above it ends the oldest. */
export const MAXIMUM_FAMILIES_PER_RESOURCE_OWNER = 100;

/** How often a revocation that met a held row is tried: all tokens of a family can be revoked at once. */
const MAXIMUM_TURNS = MAXIMUM_ACCESS_TOKENS_PER_FAMILY;

/** Bounds of the batches in which concurrent requests travel. */
export interface TokenStoreOptions {
  /** Lifetimes of clients that were registered without their own. */
  readonly lifetimes: TokenLifetimes;
  readonly maximumBatch: number;
  readonly maximumWaiting: number;
  readonly maximumInFlight: number;
}

/** Builds the store. Look-ups and rotations of concurrent requests share statements; each has its own answer. */
export function createTokenStore(database: Database, options: TokenStoreOptions): TokenStore {
  const bounds = { ...options, isUndone: isStatementFailure };
  const lookUp = createCoalescer<LookUpRequest, OrdinalLookUp>({
    ...bounds,
    async send(requests) {
      const rows = await database.run<LookUpRow>(lookUpStatement, lookUpValues(requests));
      return lookUpsFromRows(requests, rows, options.lifetimes);
    },
  });
  const rotate = createCoalescer<Rotation, RotateRow>({
    ...bounds,
    send: (rotations) => database.run<RotateRow>(rotateStatement, rotateValues(rotations)),
    // Two rotations of one family in one statement would both meet the row as it was before.
    keyOf: ({ familyId }) => familyId,
  });
  const rowQueue = createRowQueue(database);
  const revoke = async <Row extends RevokedRow>(
    familyId: string,
    statement: Statement,
    values: readonly unknown[],
  ): Promise<Row | undefined> => {
    for (let turn = 0; turn < MAXIMUM_TURNS; turn++) {
      const row = await rowQueue.run<Row>(familyId, statement, values);
      if (row?.outcome !== 'not_locked') return row;
    }
    throw new TemporarilyUnavailable('the row of the family was held at every turn');
  };
  const secretNotedAt = new Map<string, number>();
  const eventRecordedAt = new Map<string, number>();
  return {
    async lookUp(request) {
      return (await lookUp(request)).lookUp;
    },

    async startFamily({ familyId, client, resourceOwner, scope, refreshToken, ...family }) {
      const { accessTokenLifetimeSeconds, ...lifetimes } = client.lifetimes;
      // A family that cannot be refreshed is over with its only token.
      const [idleLifetimeSeconds, lifetimeSeconds] = refreshToken
        ? [lifetimes.refreshTokenIdleLifetimeSeconds, lifetimes.refreshTokenLifetimeSeconds]
        : [accessTokenLifetimeSeconds, accessTokenLifetimeSeconds];
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
        idleLifetimeSeconds,
        lifetimeSeconds,
        accessTokenLifetimeSeconds,
        family.origin.deviceLabel ?? null,
        family.origin.userAgent ?? null,
        family.origin.address,
        MAXIMUM_FAMILIES_PER_RESOURCE_OWNER - 1,
      ]);
      return issuedOrLost(rows);
    },

    async rotate(rotation) {
      let row: RotateRow | NotLocked | undefined = await rotate(rotation);
      if (row.outcome === 'moved') row = await rotate({ ...rotation, place: row.place });
      if (row.outcome === 'moved' || row.outcome === 'not_locked') {
        row = await rowQueue.wait(rotation.familyId, (run, place) =>
          run<RotateRow>(rotateStatement, rotateValues([{ ...rotation, place }])),
        );
      }
      return row?.outcome === 'rotated' ? issuedOrLost([row]) : { outcome: 'lost' };
    },

    async issueAdditionalAccessToken({ familyId, client, currentDigest, accessToken }) {
      const row = await rowQueue.run<AdditionalRow>(familyId, issueAdditionalStatement, [
        familyId,
        currentDigest,
        accessToken.digest,
        formatScope(accessToken.scope),
        client.lifetimes.accessTokenLifetimeSeconds,
      ]);
      return issuedOrLost(row?.outcome === 'issued' ? [row] : []);
    },

    async revokeFamily(familyId, reason, event) {
      const row = await revoke<RevokedFamilyRow>(familyId, revokeFamilyStatement, [
        familyId,
        reason,
        event?.kind ?? null,
        event?.client.clientId ?? null,
        event?.origin.address ?? null,
      ]);
      return row && { address: row.address ?? undefined };
    },

    async revokeAccessToken(familyId, accessTokenDigest) {
      const values = [familyId, accessTokenDigest];
      return (await revoke(familyId, revokeAccessTokenStatement, values)) !== undefined;
    },

    recordSecurityEvent({ kind, familyId, client, origin }) {
      if (!isFirstInAMinute(eventRecordedAt, `${kind} ${familyId} ${client.key}`)) return;
      const values = [kind, familyId, client.clientId, origin.address];
      database.run(recordSecurityEventStatement, values).catch(() => {});
    },

    async recordPulse() {
      await database.run(pulseStatement, [OUTAGE_AFTER_SECONDS]);
    },

    noteSecretUse(client, secretDigest) {
      const name = `${client.key} ${secretDigest.toString('hex')}`;
      if (!isFirstInAMinute(secretNotedAt, name)) return;
      // Losing one note loses a minute of precision, so nobody is told.
      database.run(noteSecretUseStatement, [client.key, secretDigest]).catch(() => {});
    },
  };
}

/** Names that are remembered; when there are more, all are forgotten and noted once more. */
const MAXIMUM_REMEMBERED = 10_000;

function isFirstInAMinute(noted: Map<string, number>, name: string): boolean {
  const now = performance.now();
  if (now - (noted.get(name) ?? Number.NEGATIVE_INFINITY) < 60_000) return false;
  if (noted.size >= MAXIMUM_REMEMBERED) noted.clear();
  noted.set(name, now);
  return true;
}

interface ExpiresInRow {
  expires_in_seconds: number;
  refresh_expires_in_seconds: number;
}

type AdditionalRow = { outcome: 'issued' } & ExpiresInRow;

type RotateRow = OrdinalRow &
  (
    | ({ outcome: 'rotated' } & ExpiresInRow)
    | { outcome: 'moved'; place: string }
    | { outcome: 'lost' }
    | NotLocked
  );

interface RevokedRow {
  outcome: 'revoked';
}

interface RevokedFamilyRow extends RevokedRow {
  address: string | null;
}

const issuedOrLost = ([row]: readonly ExpiresInRow[]): IssueOutcome =>
  row === undefined
    ? { outcome: 'lost' }
    : {
        outcome: 'issued',
        accessTokenExpiresInSeconds: row.expires_in_seconds,
        refreshTokenExpiresInSeconds: row.refresh_expires_in_seconds,
      };

/** The bind parameters of a batch: an array per column, in the order of the requests. */
const rotateValues = (rotations: readonly Rotation[]): unknown[] => [
  uuidArray(rotations.map(({ familyId }) => familyId)),
  tidArray(rotations.map(({ place }) => place)),
  byteaArray(rotations.map(({ presentedDigest }) => presentedDigest)),
  byteaArray(rotations.map(({ successorDigest }) => successorDigest)),
  byteaArray(rotations.map(({ successorSalt }) => successorSalt)),
  byteaArray(rotations.map(({ accessToken }) => accessToken.digest)),
  textArray(rotations.map(({ accessToken }) => formatScope(accessToken.scope))),
  int4Array(rotations.map(({ client }) => client.lifetimes.accessTokenLifetimeSeconds)),
  int4Array(rotations.map(({ client }) => client.lifetimes.refreshTokenIdleLifetimeSeconds)),
  int4Array(rotations.map(({ client }) => client.lifetimes.retryWindowSeconds)),
];
