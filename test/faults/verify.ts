/** The invariants of `requirements` 2.1, as a client and an operator can check them after a fault. */
import type { Test } from 'tap';
import type { TestDatabase } from '../support/database.ts';
import {
  type Holder,
  insist,
  introspect,
  type Ledger,
  type LoadClient,
  newest,
  orphanedOnce,
  PASSWORD,
  refreshOnce,
  type Target,
} from './load.ts';
import { ask } from './support.ts';

/** Runs work over many things, a few at a time. */
export async function inTurns<Item>(
  items: readonly Item[],
  atOnce: number,
  work: (item: Item, index: number) => Promise<void>,
): Promise<void> {
  let next = 0;
  const lane = async () => {
    while (next < items.length) {
      const index = next++;
      await work(items[index] as Item, index);
    }
  };
  await Promise.all(Array.from({ length: atOnce }, lane));
}

/** Introspects every token at every target; answers those that are not as expected. */
export async function findUnexpected(
  ledger: Ledger,
  targets: readonly Target[],
  client: LoadClient,
  tokens: readonly string[],
  isActive: boolean,
): Promise<number> {
  let unexpected = 0;
  await inTurns(tokens, 16, async (token) => {
    for (const target of targets) {
      const { body } = await insist(ledger, () => introspect(target, client, token));
      if (body.active !== isActive) unexpected++;
    }
  });
  return unexpected;
}

/** What must not change through a fault (I12). */
export const constantsOf = (database: TestDatabase, holders: readonly Holder[]) =>
  ask(
    database,
    `select id, client_key, resource_owner_id, scope, audience, started_at, expires_at
     from token_family where id = any ($1) order by id`,
    [holders.map(({ familyId }) => familyId)],
  );

/** Old refresh tokens of a family that are introspected, evenly spread over its life. */
const SAMPLED_SPENT_TOKENS = 20;

/**
 * Checks families whose holders only ever presented the newest token they had: each goes on, has one
 * live refresh token, and as many generations as its holder was given tokens.
 *
 * @returns how many tokens were introspected
 */
export async function verifyHolders(
  t: Test,
  ledger: Ledger,
  database: TestDatabase,
  targets: readonly [Target, ...Target[]],
  holders: readonly Holder[],
): Promise<void> {
  const [first] = targets;
  await inTurns(holders, 8, (holder) => refreshOnce(ledger, database, holder, first));
  const loggedOut = holders.filter(({ logout }) => logout !== undefined);
  t.equal(loggedOut.length, 0, 'I4: nobody was logged out');

  let dead = 0;
  let spentAlive = 0;
  await inTurns(holders, 4, async (holder) => {
    const { client, refreshTokens, accessTokens } = holder;
    const current = [newest(refreshTokens), newest(accessTokens)];
    dead += await findUnexpected(ledger, targets, client, current, true);
    const spent = refreshTokens.slice(0, -1);
    const step = Math.ceil(spent.length / SAMPLED_SPENT_TOKENS);
    const sample = [...spent.filter((_, index) => index % step === 0), ...spent.slice(-3)];
    spentAlive += await findUnexpected(ledger, targets, client, sample, false);
  });
  t.equal(dead, 0, 'I2, I6: the newest access and refresh token of everybody are active');
  t.equal(spentAlive, 0, 'I1: no spent refresh token is active');

  const rows = await ask<{ id: string; generation: number; access_tokens: number }>(
    database,
    `select id, generation, cardinality(access_tokens) as access_tokens
     from token_family where id = any ($1)`,
    [holders.map(({ familyId }) => familyId)],
  );
  const generations = new Map(rows.map(({ id, generation }) => [id, generation]));
  const miscounted = holders.filter(
    ({ familyId, refreshTokens }) => generations.get(familyId) !== refreshTokens.length - 1,
  );
  t.equal(miscounted.length, 0, 'I11: one generation for each refresh token that was delivered');
  t.ok(
    rows.every(({ access_tokens }) => access_tokens <= 16),
    'I9: no family keeps more than 16 access tokens',
  );
}

/** Whatever happened, nothing looked like a verdict that was none. */
export function verifyLedger(t: Test, { counts, violations }: Ledger): void {
  t.strictSame(violations, [], 'I5: no trouble looked like a verdict');
  t.equal(counts.verdict, 0, 'I5: no reply was a verdict at all');
}

/** No secret reaches a log, whatever the error path (I10). */
export function verifyLogs(t: Test, output: string): void {
  t.notMatch(output, /h(at|rt|cs)_[A-Za-z0-9_-]{20}/, 'I10: no token in a log');
  t.notOk(output.includes(PASSWORD), 'I10: no password in a log');
}

/** Prints figures as a short table. */
export function printFigures(t: Test, figures: Readonly<Record<string, number | string>>): void {
  const width = Math.max(...Object.keys(figures).map((name) => name.length));
  for (const [name, figure] of Object.entries(figures)) {
    t.comment(`${name.padEnd(width)}  ${figure}`);
  }
}

/** What happened to these holders, for `printFigures`. */
export function figuresOf(
  { counts }: Ledger,
  holders: readonly Holder[],
): Record<string, number | string> {
  const orphaned = orphanedOnce(holders);
  const orphanings = orphaned.reduce((sum, { orphanedRotations }) => sum + orphanedRotations, 0);
  return {
    'acknowledged rotations': holders.reduce(
      (sum, { refreshTokens }) => sum + refreshTokens.length - 1,
      0,
    ),
    'replies: granted': counts.granted,
    'replies: verdict (4xx)': counts.verdict,
    'replies: 503 with Retry-After': counts.unavailable,
    'replies: none (connection lost)': counts.unanswered,
    'replies: anything else': counts.improper,
    'left with only the parent': `${orphaned.length} of ${holders.length} clients, ${orphanings} times`,
    'logged out': holders.filter(({ logout }) => logout !== undefined).length,
  };
}
