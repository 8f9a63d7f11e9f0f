/**
 * Token families as `design.md` describes them: without a database, a digest or a clock. RFC 9700 §4.14.2.
 *
 * Time is counted in seconds and goes in steps; lifetimes end halfway between two of them, so that the
 * time which a test itself takes decides nothing.
 */

export const STEP_SECONDS = 100;
export const WINDOW_SECONDS = 250;
export const ACCESS_SECONDS = 1_150;
export const IDLE_SECONDS = 1_450;
export const ABSOLUTE_SECONDS = 2_950;
export const CLIENT_SCOPE = 'read write';
/** An outage that began this soon after another one continues it: its windows may be open still. */
const OUTAGES_APART_SECONDS = 300;

export interface ModelAccessToken {
  readonly text: string;
  readonly scope: string;
  readonly expiresAt: number;
  isRevoked: boolean;
}

export interface ModelFamily {
  readonly scope: string;
  readonly expiresAt: number;
  idleExpiresAt: number;
  isRevoked: boolean;
  /** By generation; the last one is current. */
  readonly refreshTokens: string[];
  readonly accessTokens: ModelAccessToken[];
  rotation: { readonly at: number; readonly accessToken: ModelAccessToken } | undefined;
}

/** One person and all that they ever got. */
export interface Model {
  now: number;
  outage: { readonly beganAt: number; readonly resumedAt: number } | undefined;
  password: string;
  isDisabled: boolean;
  readonly families: ModelFamily[];
}

export interface Presentation {
  readonly generation: number;
  readonly scope: string | undefined;
  readonly isOwner: boolean;
}

export type Prediction = 'invalid_grant' | 'invalid_scope' | 'rotate' | 'retry';

const words = (scope: string): string[] => scope.split(' ').toSorted();

/** RFC 6749 §3.3: the order of the words means nothing. */
export const isSameScope = (one: string, other: string): boolean =>
  words(one).join() === words(other).join();

const isWithin = (part: string, whole: string): boolean =>
  words(part).every((word) => words(whole).includes(word));

const isAlive = ({ now }: Model, family: ModelFamily): boolean =>
  !family.isRevoked && now < family.expiresAt;

export const isGood = (model: Model, family: ModelFamily, token: ModelAccessToken): boolean =>
  isAlive(model, family) && !token.isRevoked && model.now < token.expiresAt;

/** Every token ever issued, and whether its own client sees it as active. */
export const activity = (model: Model): (readonly [string, boolean])[] =>
  model.families.flatMap((family) => [
    ...family.accessTokens.map((token) => [token.text, isGood(model, family, token)] as const),
    ...family.refreshTokens.map((text) => {
      const isCurrent = text === family.refreshTokens.at(-1) && model.now < family.idleExpiresAt;
      return [text, isCurrent && isAlive(model, family)] as const;
    }),
  ]);

/** Starts a family whose first tokens are still to be added. */
export function startFamily(model: Model, scope: string): ModelFamily {
  const family: ModelFamily = {
    scope,
    expiresAt: model.now + ABSOLUTE_SECONDS,
    idleExpiresAt: model.now + IDLE_SECONDS,
    isRevoked: false,
    refreshTokens: [],
    accessTokens: [],
    rotation: undefined,
  };
  model.families.push(family);
  return family;
}

export function addAccessToken(
  model: Model,
  family: ModelFamily,
  { text, scope }: { readonly text: string; readonly scope: string },
): ModelAccessToken {
  const expiresAt = Math.min(model.now + ACCESS_SECONDS, family.expiresAt);
  const added = { text, scope, expiresAt, isRevoked: false };
  family.accessTokens.push(added);
  return added;
}

/** Says what a refresh token means. A replay ends the family, whatever else is asked for. */
export function present(
  model: Model,
  family: ModelFamily,
  { generation, scope, isOwner }: Presentation,
): Prediction {
  if (!isOwner || !isAlive(model, family)) return 'invalid_grant';
  const current = family.refreshTokens.length - 1;
  const isIdle = family.idleExpiresAt <= model.now;
  const isRetry = generation === current - 1 && !isIdle && isWindowOpen(model, family);
  if (generation !== current && !isRetry) family.isRevoked = true;
  if (isIdle || family.isRevoked) return 'invalid_grant';
  if (scope !== undefined && !isWithin(scope, family.scope)) return 'invalid_scope';
  return isRetry ? 'retry' : 'rotate';
}

function isWindowOpen({ now, outage }: Model, { rotation }: ModelFamily): boolean {
  if (rotation === undefined) return false;
  const end = rotation.at + WINDOW_SECONDS;
  const wasOpen = outage && end > outage.beganAt && rotation.at < outage.resumedAt;
  return now < (wasOpen ? Math.max(end, outage.resumedAt + WINDOW_SECONDS) : end);
}

/** Makes the new refresh token current. */
export function rotate(
  model: Model,
  family: ModelFamily,
  refreshToken: string,
  accessToken: ModelAccessToken,
): void {
  family.refreshTokens.push(refreshToken);
  family.idleExpiresAt = Math.min(model.now + IDLE_SECONDS, family.expiresAt);
  family.rotation = { at: model.now, accessToken };
}

/** The access token that a retry for this scope gets again; undefined where it gets a new one. */
export function reusable(
  model: Model,
  family: ModelFamily,
  scope: string,
): ModelAccessToken | undefined {
  const token = family.rotation?.accessToken;
  const isReusable = token && isGood(model, family, token) && isSameScope(token.scope, scope);
  return isReusable ? token : undefined;
}

export function pass(model: Model, seconds: number, service: 'up' | 'down'): void {
  const { now: beganAt, outage: last } = model;
  model.now += seconds;
  if (service === 'up') return;
  const isContinued = last !== undefined && beganAt < last.resumedAt + OUTAGES_APART_SECONDS;
  model.outage = { beganAt: isContinued ? last.beganAt : beganAt, resumedAt: model.now };
}
