/** The life cycle of a token family: when it is alive, and what a presented refresh token means. RFC 9700 §4.14. */
import { isSameDigest, type PresentedRefreshToken } from './opaque-token.ts';
import type { Scope } from './scope.ts';

/** One grant and every token that descends from it, as read from the database at one instant. */
export interface TokenFamily {
  readonly familyId: string;
  readonly clientKey: number;
  readonly clientId: string;
  /** `sub`; undefined where the grant has no resource owner. */
  readonly subject: string | undefined;
  readonly scope: Scope;
  readonly audience: readonly string[];
  /** What refresh tokens are made of; undefined where the grant gives none. */
  readonly lineage: FamilyLineage | undefined;
  readonly startedAt: Date;
  readonly idleExpiresAt: Date;
  readonly expiresAt: Date;
  readonly revokedAt: Date | undefined;
  /** Families started at or before this instant are dead: the later of the client's cut-off and the server's. */
  readonly sessionsValidAfter: Date | undefined;
  /** The client is disabled or deleted, or the resource owner is disabled. */
  readonly isSuspended: boolean;
}

/** The stored half of a family's refresh tokens: digests and a salt, from which alone nothing follows. */
export interface FamilyLineage {
  readonly lineageDigest: Buffer;
  readonly generation: number;
  readonly currentDigest: Buffer;
  /** The rotation that made the current token; undefined before the first one. */
  readonly rotation: FamilyRotation | undefined;
  /** Where the store read the family: a rotation need not search for it again. */
  readonly place: string;
}

/** The last rotation: all that a retry needs beside the token that it presents. */
export interface FamilyRotation {
  readonly previousDigest: Buffer;
  readonly successorSalt: Buffer;
  readonly rotatedAt: Date;
  /** `rotatedAt` plus the retry window that was in force then. */
  readonly retryUntil: Date;
}

/** When the service last gave a sign of life, and its last outage. */
export interface ServicePulse {
  readonly pulseAt: Date;
  readonly lastOutage: { readonly beganAt: Date; readonly resumedAt: Date } | undefined;
}

/** A pulse older than this means that the service was down; it is written every 5 s. */
export const OUTAGE_AFTER_SECONDS = 15;

/** What a presented refresh token means. Only `rotate`, `retry` and `replay` change anything. */
export type RefreshDecision =
  | { readonly kind: 'rotate'; readonly family: TokenFamily; readonly lineage: FamilyLineage }
  | { readonly kind: 'retry'; readonly family: TokenFamily; readonly rotation: FamilyRotation }
  | { readonly kind: 'replay' }
  | { readonly kind: 'another-clients' }
  | { readonly kind: 'refuse'; readonly detail: string };

/** Why a family is dead, or undefined while it is alive. The one place that defines *alive*. */
export function causeOfDeath(family: TokenFamily, now: Date): string | undefined {
  if (family.revokedAt !== undefined) return 'family is revoked';
  if (family.expiresAt <= now) return 'family has expired';
  // Not asked the other way round: no comparison holds for what is no date, such as the infinity of PostgreSQL.
  if (family.sessionsValidAfter !== undefined && !(family.startedAt > family.sessionsValidAfter)) {
    return 'family began before a cut-off';
  }
  if (family.isSuspended) return 'client or resource owner is disabled';
  return undefined;
}

/**
 * Decides what a presented refresh token means.
 *
 * The order matters: whoever cannot show the lineage never held a token of this family and can
 * change nothing (a resource server knows family ids from access tokens), and another client's
 * mistake must not end the family.
 *
 * @param now the database's clock at the instant at which `family` was read
 * @see RFC 9700 §4.14.2
 */
export function decideRefresh(
  family: TokenFamily | undefined,
  presented: PresentedRefreshToken,
  clientKey: number,
  pulse: ServicePulse,
  now: Date,
): RefreshDecision {
  const lineage = family?.lineage;
  if (family === undefined || lineage === undefined) return refuse('no such family');
  if (!isSameDigest(presented.lineageDigest, lineage.lineageDigest)) return refuse('wrong lineage');
  if (family.clientKey !== clientKey) return { kind: 'another-clients' };

  const death = causeOfDeath(family, now);
  if (death !== undefined) return refuse(death);

  const isIdle = family.idleExpiresAt <= now;
  if (isSameDigest(presented.secretDigest, lineage.currentDigest)) {
    return isIdle
      ? refuse('refresh token was idle for too long')
      : { kind: 'rotate', family, lineage };
  }
  const { rotation } = lineage;
  if (
    rotation !== undefined &&
    isSameDigest(presented.secretDigest, rotation.previousDigest) &&
    !isIdle &&
    // Without a window even a clock that steps back opens none.
    rotation.retryUntil > rotation.rotatedAt &&
    now < retryDeadline(rotation, pulse)
  ) {
    return { kind: 'retry', family, rotation };
  }
  return { kind: 'replay' };
}

/**
 * Tells whether a client shows a token of this family that was its own, however old: such a client is
 * told nothing new when it learns that the family is over.
 */
export const isHeldBy = (
  family: TokenFamily | undefined,
  { lineageDigest }: PresentedRefreshToken,
  clientKey: number,
): boolean =>
  family?.lineage !== undefined &&
  isSameDigest(lineageDigest, family.lineage.lineageDigest) &&
  family.clientKey === clientKey;

/**
 * The instant until which the spent token of this rotation is answered with the same successor.
 *
 * The window counts service time. While the service was down its clients could not retry, so a window
 * that was open during the outage starts again when the service resumed.
 */
export function retryDeadline(rotation: FamilyRotation, pulse: ServicePulse): Date {
  const { rotatedAt, retryUntil } = rotation;
  const outage = pulse.lastOutage;
  // The outage is dated from the last pulse before it, so a rotation soon after that pulse counts too.
  const wasOpen =
    outage !== undefined && retryUntil > outage.beganAt && rotatedAt < outage.resumedAt;
  if (!wasOpen) return retryUntil;
  const windowMilliseconds = retryUntil.getTime() - rotatedAt.getTime();
  return new Date(outage.resumedAt.getTime() + windowMilliseconds);
}

/** Tells whether the service was silent for so long that an outage has to be recorded first. */
export const isPulseOverdue = (pulse: ServicePulse, now: Date): boolean =>
  now.getTime() - pulse.pulseAt.getTime() > OUTAGE_AFTER_SECONDS * 1000;

const refuse = (detail: string): RefreshDecision => ({ kind: 'refuse', detail });
