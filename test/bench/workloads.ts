/** What is asked in a scenario: one order after the other, and whether each answer is right. */
import type { Dialect } from './dialects.ts';
import {
  activeFamilies,
  type FamilyClass,
  familiesToRefresh,
  familiesToRevoke,
  personCount,
  revokedFamilies,
  SCOPE,
  unknownFamilies,
  username,
  walk,
} from './families.ts';

export type Scenario =
  | 'introspect-active'
  | 'introspect-unknown'
  | 'introspect-revoked'
  | 'refresh'
  | 'refresh-window'
  | 'revoke'
  | 'login';

export interface Order {
  readonly request: string;
  readonly family: number;
}

export interface Workload {
  /** Undefined when there is nothing left to ask. */
  next(): Order | undefined;
  /** Whether an answer is right; one that is sampled is looked at as a whole. */
  isRight(order: Order, status: number, body: string, isSampled: boolean): boolean;
}

/** What remains between the measurements of one database. */
export interface Memory {
  /** The current refresh token of families that were refreshed already, or are about to be. */
  readonly refreshTokens: Map<number, string>;
  refreshed: number;
  revoked: number;
  loggedIn: number;
}

export const createMemory = (): Memory => ({
  refreshTokens: new Map(),
  refreshed: 0,
  revoked: 0,
  loggedIn: 0,
});

export interface WorkloadOptions {
  readonly dialect: Dialect;
  readonly families: number;
  readonly round: number;
  readonly memory: Memory;
}

/** Different families of one measurement of introspection; each round asks about others. */
const INTROSPECTED = 30_000;

/**
 * Families that are refreshed to see how cost grows. The same number in a small database as in a large
 * one: otherwise those of the small one would be refreshed more often and carry more access tokens.
 */
const REFRESH_WINDOW = 2_500;

/** More than any server here refreshes in one measurement. */
const REFRESHED_AHEAD = 100_000;

export function createWorkload(scenario: Scenario, options: WorkloadOptions): Workload {
  const { dialect, families } = options;
  switch (scenario) {
    case 'introspect-active':
      return introspection(options, activeFamilies(families), {
        status: 200,
        looksRight: (body) => body.includes('"active":true'),
        isRight: (body, family) => dialect.isActive(body, family, families),
      });
    case 'introspect-unknown':
      return introspection(options, unknownFamilies(families), inactive(dialect));
    case 'introspect-revoked':
      return introspection(options, revokedFamilies(families), inactive(dialect));
    case 'refresh':
      return refresh(options, memoryWalk(options));
    case 'refresh-window':
      return refresh(options, windowWalk(options));
    case 'revoke':
      return revoke(options);
    case 'login':
      return login(options);
  }
}

interface ExpectedAnswer {
  readonly status: number;
  readonly looksRight: (body: string) => boolean;
  readonly isRight: (body: string, family: number) => boolean;
}

const inactive = ({ inactiveStatus, isInactive }: Dialect): ExpectedAnswer => ({
  status: inactiveStatus,
  looksRight: isInactive,
  isRight: isInactive,
});

/** Requests are written beforehand: hashing tokens would take the generator longer than sending them. */
function introspection(
  { dialect, round }: WorkloadOptions,
  familyClass: FamilyClass,
  expected: ExpectedAnswer,
): Workload {
  const count = Math.min(INTROSPECTED, familyClass.count);
  const orders = Array.from({ length: count }, (_, index): Order => {
    const family = walk(familyClass, round * count + index);
    return { family, request: dialect.introspect(dialect.accessToken(family)) };
  });
  let position = 0;
  return {
    next: () => orders[position++ % count],
    isRight: (order, status, body, isSampled) =>
      status === expected.status &&
      expected.looksRight(body) &&
      (!isSampled || expected.isRight(body, order.family)),
  };
}

/**
 * Every family in turn. Tokens are computed beforehand, like the requests of an introspection: three hashes
 * for one of Heirloom and one for those of the others would be a part of what is measured.
 */
function memoryWalk(options: WorkloadOptions): () => number {
  const { families, memory } = options;
  const familyClass = familiesToRefresh(families);
  const familyAt = (position: number): number => walk(familyClass, REFRESH_WINDOW + position);
  const ahead = Math.min(REFRESHED_AHEAD, familyClass.count);
  for (let index = 0; index < ahead; index++) {
    refreshTokenOf(options, familyAt(memory.refreshed + index));
  }
  return () => familyAt(memory.refreshed++);
}

/** The same few families in every round, far apart in the table; their tokens, too, are computed beforehand. */
function windowWalk(options: WorkloadOptions): () => number {
  const familyClass = familiesToRefresh(options.families);
  const width = Math.min(REFRESH_WINDOW, familyClass.count);
  for (let index = 0; index < width; index++) refreshTokenOf(options, walk(familyClass, index));
  let position = 0;
  return () => walk(familyClass, position++ % width);
}

/** The current refresh token of a family, which is the one it was seeded with until it is refreshed. */
function refreshTokenOf({ dialect, memory }: WorkloadOptions, family: number): string {
  const known = memory.refreshTokens.get(family);
  if (known !== undefined) return known;
  const seeded = dialect.refreshToken(family);
  memory.refreshTokens.set(family, seeded);
  return seeded;
}

function refresh(options: WorkloadOptions, nextFamily: () => number): Workload {
  const { dialect, memory } = options;
  // Where families are few, a walk comes back to some that have not been answered yet.
  const underWay = new Set<number>();
  const nextAnswered = (): number => {
    let family = nextFamily();
    while (underWay.has(family)) family = nextFamily();
    return family;
  };
  return {
    next() {
      const family = nextAnswered();
      underWay.add(family);
      return { family, request: dialect.refresh(refreshTokenOf(options, family)) };
    },
    isRight({ family, request }, status, body) {
      underWay.delete(family);
      if (status !== 200) return false;
      const { access_token: accessToken, refresh_token: refreshToken, scope } = JSON.parse(body);
      memory.refreshTokens.set(family, refreshToken);
      const isNew = typeof refreshToken === 'string' && !request.endsWith(refreshToken);
      return isNew && typeof accessToken === 'string' && scope === SCOPE;
    },
  };
}

/** Never the same family twice: the second time would cost no write. */
function revoke({ dialect, families, memory }: WorkloadOptions): Workload {
  const familyClass = familiesToRevoke(families);
  return {
    next() {
      if (memory.revoked === familyClass.count) return undefined;
      const family = walk(familyClass, memory.revoked++);
      const request = dialect.revoke?.(dialect.refreshToken(family));
      return request === undefined ? undefined : { family, request };
    },
    isRight: (_order, status, body) => status === 200 && body === dialect.revokedBody,
  };
}

function login({ dialect, families, memory }: WorkloadOptions): Workload {
  return {
    next() {
      const person = memory.loggedIn++ % personCount(families);
      return { family: -1, request: dialect.login(username(person)) };
    },
    isRight(_order, status, body) {
      if (status !== 200) return false;
      const { access_token: accessToken, refresh_token: refreshToken } = JSON.parse(body);
      return typeof accessToken === 'string' && typeof refreshToken === 'string';
    },
  };
}
