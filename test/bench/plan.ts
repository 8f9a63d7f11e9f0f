/** What is measured, in which order, and what has to come out. */
import type { DialectName } from './dialects.ts';
import type { Scenario } from './workloads.ts';

/** Whatever is measured: servers, the same server on another database, and argon2 by itself. */
export type Contestant =
  | 'heirloom'
  | 'heirloom-small'
  | 'heirloom-huge'
  | 'heirloom-with-coalescing'
  | 'heirloom-without-coalescing'
  | 'heirloom-from-memory'
  | 'oidc-provider'
  | 'oidc-provider-static'
  | 'oauth2-server'
  | 'no-database'
  | 'argon2-alone';

export const labels: Readonly<Record<Contestant, string>> = {
  heirloom: 'Heirloom',
  'heirloom-small': 'Heirloom, small',
  'heirloom-huge': 'Heirloom, huge',
  'heirloom-with-coalescing': 'Heirloom, coalescing',
  'heirloom-without-coalescing': 'Heirloom, not coalescing',
  'heirloom-from-memory': 'Heirloom, asking nobody',
  'oidc-provider': 'node-oidc-provider',
  'oidc-provider-static': 'node-oidc-provider, static',
  'oauth2-server': '@node-oauth/oauth2-server',
  'no-database': 'Fastify, no database',
  'argon2-alone': 'argon2 alone',
};

export function dialectOf(contestant: Contestant): DialectName {
  switch (contestant) {
    case 'oidc-provider':
    case 'oauth2-server':
    case 'no-database':
      return contestant;
    case 'oidc-provider-static':
      return 'oidc-provider';
    // Whose token it is, it does not know either.
    case 'heirloom-from-memory':
      return 'no-database';
    default:
      return 'heirloom';
  }
}

/** Names of rows in the report; the first load of a row is the one that is timed. */
export type RowName =
  | Scenario
  | 'introspect-lone'
  | 'introspect-16-connections'
  | 'introspect-64-connections'
  | 'introspect-under-login'
  | 'introspect-lone-under-login'
  | 'introspect-1000-connections';

export interface Row {
  readonly name: RowName;
  readonly title: string;
  readonly loads: readonly { readonly scenario: Scenario; readonly connections: number }[];
  /** In a round every row is run by all its contestants in turn, so that a change of the machine meets all. */
  readonly contestants: readonly Contestant[];
  /** Once, after all rounds. */
  readonly isLast?: boolean;
}

/**
 * Four full batches of Heirloom: whoever is measured always has work. With fewer, the server, PostgreSQL
 * and the load generator take turns on few cores, and waiting is a part of what is measured.
 */
export const SATURATING_CONNECTIONS = 256;
/** Where latencies are measured: a server that is not busy all the time. */
const CONNECTIONS = 64;
/** Enough to keep every hash that the gate admits running, and few enough that none is shed. */
const LOGIN_CONNECTIONS = 16;
const logins = { scenario: 'login', connections: LOGIN_CONNECTIONS } as const;
const everybody = ['heirloom', 'oidc-provider', 'oauth2-server'] as const;
const sizes = ['heirloom', 'heirloom-small', 'heirloom-huge'] as const;
/** Those whose introspections are measured at every number of connections. */
export const swept: readonly Contestant[] = ['heirloom', 'oidc-provider', 'no-database'];

const saturated = (
  name: Scenario,
  title: string,
  contestants: readonly Contestant[] = everybody,
): Row => ({
  name,
  title,
  loads: [{ scenario: name, connections: SATURATING_CONNECTIONS }],
  contestants,
});

const introspectOver = (connections: 16 | 64): Row => ({
  name: `introspect-${connections}-connections`,
  title: `introspect, ${connections} connections`,
  loads: [{ scenario: 'introspect-active', connections }],
  contestants: swept,
});

export const rows: readonly Row[] = [
  saturated('introspect-active', 'introspect, active', [
    'heirloom',
    'heirloom-small',
    'heirloom-huge',
    'oidc-provider',
    'oidc-provider-static',
    'oauth2-server',
    'heirloom-from-memory',
    'no-database',
  ]),
  introspectOver(CONNECTIONS),
  introspectOver(16),
  saturated('introspect-unknown', 'introspect, unknown'),
  saturated('introspect-revoked', 'introspect, revoked'),
  saturated('refresh', 'refresh', [...everybody, 'oidc-provider-static']),
  saturated('revoke', 'revoke', ['heirloom', 'oidc-provider']),
  {
    name: 'login',
    title: 'login',
    loads: [logins],
    contestants: [...everybody, 'argon2-alone'],
  },
  {
    name: 'introspect-lone',
    title: 'introspect, one connection',
    loads: [{ scenario: 'introspect-active', connections: 1 }],
    // The last two have done nothing else before: what a process has been through tells, too.
    contestants: [...sizes, 'heirloom-with-coalescing', 'heirloom-without-coalescing'],
  },
  {
    name: 'introspect-under-login',
    title: 'introspect, 64 connections, during logins',
    loads: [{ scenario: 'introspect-active', connections: CONNECTIONS }, logins],
    contestants: sizes,
  },
  {
    name: 'introspect-lone-under-login',
    title: 'introspect, one connection, during logins',
    loads: [{ scenario: 'introspect-active', connections: 1 }, logins],
    contestants: ['heirloom'],
  },
  saturated('refresh-window', 'refresh, the same 2,500 families', sizes),
  {
    name: 'introspect-1000-connections',
    title: 'introspect, 1,000 connections',
    loads: [{ scenario: 'introspect-active', connections: 1000 }],
    contestants: [...everybody, 'no-database'],
    isLast: true,
  },
];

/** What a single measurement found. CPU and memory are undefined where there is no /proc. */
export interface Measured {
  readonly perSecond: number;
  readonly p50Milliseconds: number | undefined;
  readonly p99Milliseconds: number | undefined;
  /** CPU time per request: the server's process, and PostgreSQL with all its backends. */
  readonly serverMicroseconds: number | undefined;
  readonly databaseMicroseconds: number | undefined;
  readonly peakMegabytes: number | undefined;
  /** How busy the load generator's event loop was, 0 to 1; near 1 it holds the server back. */
  readonly generatorBusyShare: number | undefined;
}

/** The rounds of every row and contestant. */
export type Rounds = ReadonlyMap<RowName, ReadonlyMap<Contestant, readonly Measured[]>>;

type Metric = 'perSecond' | 'p50Milliseconds' | 'p99Milliseconds';
type Side = readonly [row: RowName, contestant: Contestant];

/** A ratio of two measurements of one round; most have to stay on one side of a limit. */
export interface Criterion {
  readonly text: string;
  readonly metric: Metric;
  readonly of: Side;
  readonly to: Side;
  readonly atLeast?: number;
  readonly atMost?: number;
  readonly aim?: number;
}

const growth = (text: string, metric: Metric, row: RowName): Criterion => ({
  text: `${text}, main database against the small one`,
  metric,
  // A throughput that falls and a latency that rises read the same way: how many times worse.
  of: [row, metric === 'perSecond' ? 'heirloom-small' : 'heirloom'],
  to: [row, metric === 'perSecond' ? 'heirloom' : 'heirloom-small'],
  atMost: 1.5,
});

/** Whom Heirloom's throughput is compared with; `peer-oidc-provider.js` says how its two are configured. */
const opponents = {
  'no-database': 'a Fastify route without a database',
  'oidc-provider': 'node-oidc-provider, clients and accounts in the database',
  'oidc-provider-static':
    'node-oidc-provider, clients in its configuration, accounts not looked up',
  'argon2-alone': 'argon2 alone',
};

const against = (
  opponent: keyof typeof opponents,
  row: RowName,
  what: string,
  wanted: Pick<Criterion, 'atLeast' | 'aim'> = {},
): Criterion => ({
  text: `${what} against ${opponents[opponent]}`,
  metric: 'perSecond',
  of: [row, 'heirloom'],
  to: [row, opponent],
  ...wanted,
});

/** How the two ratios of introspection move with the number of connections; nothing is asked of them. */
const byConnections = (connections: '16' | '64' | '1000'): readonly Criterion[] =>
  (['no-database', 'oidc-provider'] as const).map((contestant) => ({
    text: `introspection against ${labels[contestant]}, ${connections} connections`,
    metric: 'perSecond',
    of: [`introspect-${connections}-connections`, 'heirloom'],
    to: [`introspect-${connections}-connections`, contestant],
  }));

export const criteria: readonly Criterion[] = [
  against('no-database', 'introspect-active', 'introspection', { atLeast: 0.45, aim: 0.6 }),
  against('oidc-provider', 'introspect-active', 'introspection', { atLeast: 6, aim: 10 }),
  against('oidc-provider-static', 'introspect-active', 'introspection'),
  against('oidc-provider', 'refresh', 'refresh', { atLeast: 8 }),
  against('oidc-provider-static', 'refresh', 'refresh'),
  against('argon2-alone', 'login', 'login', { atLeast: 0.85 }),
  {
    text: 'p99 of introspection during logins against idle',
    metric: 'p99Milliseconds',
    of: ['introspect-under-login', 'heirloom'],
    to: ['introspect-64-connections', 'heirloom'],
    atMost: 5,
  },
  {
    text: 'lone request against one that is not coalesced, p50',
    metric: 'p50Milliseconds',
    of: ['introspect-lone', 'heirloom-with-coalescing'],
    to: ['introspect-lone', 'heirloom-without-coalescing'],
    // No slower, as far as a measurement of a tenth of a millisecond can tell.
    atMost: 1.05,
  },
  growth('introspection', 'perSecond', 'introspect-active'),
  growth('refresh', 'perSecond', 'refresh-window'),
  growth('lone request, p50', 'p50Milliseconds', 'introspect-lone'),
  growth('p99 of introspection during logins', 'p99Milliseconds', 'introspect-under-login'),
  ...byConnections('16'),
  ...byConnections('64'),
  ...byConnections('1000'),
];

export interface Verdict extends Criterion {
  readonly ratio: number;
  readonly lowest: number;
  readonly highest: number;
  readonly isMet: boolean;
}

/** Ratios are made within a round, where both sides met the same machine, and the median round counts. */
export function judge(criterion: Criterion, rounds: Rounds): Verdict | undefined {
  const valuesOf = ([row, contestant]: Side): (number | undefined)[] =>
    rounds
      .get(row)
      ?.get(contestant)
      ?.map((measured) => measured[criterion.metric]) ?? [];
  const divisors = valuesOf(criterion.to);
  const ratios = valuesOf(criterion.of)
    .map((value, round) => (value ?? Number.NaN) / (divisors[round] ?? Number.NaN))
    .filter((ratio) => !Number.isNaN(ratio));
  if (ratios.length === 0) return undefined;
  const ratio = median(ratios);
  const { atLeast = 0, atMost = Number.POSITIVE_INFINITY } = criterion;
  return {
    ...criterion,
    ratio,
    lowest: Math.min(...ratios),
    highest: Math.max(...ratios),
    isMet: ratio >= atLeast && ratio <= atMost,
  };
}

export function median(values: readonly number[]): number {
  const sorted = [...values].sort((one, other) => one - other);
  const middle = Math.floor(sorted.length / 2);
  const upper = sorted[middle] ?? Number.NaN;
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? Number.NaN) + upper) / 2;
}
