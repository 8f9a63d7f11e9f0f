/** No deadlock, and a row that somebody holds delays its family only. */
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { Answer } from '../support/client.ts';
import type { TestDatabase } from '../support/database.ts';
import {
  createLoadClient,
  familyOf,
  Ledger,
  type LoadClient,
  meaningOf,
  newest,
  openFamily,
  peopleNamed,
  type Reply,
  refresh,
  type Target,
  targetsOf,
} from './load.ts';
import { ask, holdRow, startPostgres, startServerProcess } from './support.ts';
import { inTurns, printFigures } from './verify.ts';

t.setTimeout(120_000);

const FAMILIES = 50;
const ROUNDS = 8;
/** More than the connections that a server keeps. */
const WAITING = 16;

const postgres = await startPostgres(t);

interface Scene {
  readonly database: TestDatabase;
  readonly client: LoadClient;
  readonly targets: readonly [Target, ...Target[]];
  /** The current refresh token of each family. */
  readonly tokens: string[];
}

async function setUp(t: Test, families: number): Promise<Scene> {
  const database = await postgres.createDatabase();
  const client = await createLoadClient(database, peopleNamed('person', 2));
  const servers = [
    await startServerProcess(t, database.url),
    await startServerProcess(t, database.url),
  ];
  const targets = targetsOf(servers);
  const ledger = new Ledger();
  const tokens: string[] = [];
  await inTurns(Array.from({ length: families }), 4, async (_, index) => {
    const holder = await openFamily(ledger, targets[0], client, `person-${index % 2}`);
    tokens[index] = newest(holder.refreshTokens);
  });
  return { database, client, targets, tokens };
}

const deadlocks = async (database: TestDatabase): Promise<number> => {
  const [row] = await ask<{ deadlocks: number }>(
    database,
    'select deadlocks::int from pg_stat_database where datname = current_database()',
  );
  return row?.deadlocks as number;
};

t.test('F16 I4, I5, I11: two processes that rotate in opposite order never deadlock', async (t) => {
  const { database, client, targets, tokens } = await setUp(t, FAMILIES);
  const before = await deadlocks(database);
  const counts: Record<string, number> = {};
  for (let round = 0; round < ROUNDS; round++) {
    const answers: Reply[][] = [[], []];
    await Promise.all(
      targets.map((target, which) => {
        const order = tokens.map((_, index) => (which === 0 ? index : FAMILIES - 1 - index));
        return inTurns(order, 25, async (index) => {
          const reply = await refresh(target, client, tokens[index] as string);
          counts[meaningOf(reply)] = (counts[meaningOf(reply)] ?? 0) + 1;
          (answers[which] as Reply[])[index] = reply;
        });
      }),
    );
    for (let index = 0; index < FAMILIES; index++) {
      const [one, other] = answers.map((each) => (each[index] as Answer).body);
      if (one?.refresh_token !== other?.refresh_token) {
        t.fail('two processes gave out different successors');
      }
      tokens[index] = one?.refresh_token;
    }
  }
  t.strictSame(counts, { granted: ROUNDS * FAMILIES * 2 }, 'every request is granted');
  const [row] = await ask<{ steps: number }>(
    database,
    'select sum(generation)::int as steps from token_family',
  );
  t.equal(row?.steps, ROUNDS * FAMILIES, 'each family moved once in each round');
  t.equal(await deadlocks(database), before, 'PostgreSQL broke no deadlock');
  printFigures(t, {
    families: FAMILIES,
    rounds: ROUNDS,
    requests: counts['granted'] ?? 0,
    'deadlocks broken': (await deadlocks(database)) - before,
  });
});

t.test('F13 I5, I7, I8: a row that somebody holds delays its own family only', async (t) => {
  for (const { held, copies } of [
    { held: 'for longer than a lock is waited for', copies: 1 },
    { held: 'while more requests wait than there are connections', copies: WAITING },
  ]) {
    await t.test(held, async (t) => {
      const { database, client, targets, tokens } = await setUp(t, 20);
      const [token, ...others] = tokens as [string, ...string[]];
      const release = await holdRow(database, familyOf(token));
      let answered = 0;
      const waiting = targets.flatMap((target) =>
        Array.from({ length: copies }, async () => {
          const reply = await refresh(target, client, token);
          answered++;
          return reply;
        }),
      );
      await delay(100);
      const refreshedOthers: Reply[] = [];
      let answeredFirst = 0;
      await inTurns(others, 8, async (other, index) => {
        refreshedOthers.push(await refresh(targets[index % 2] as Target, client, other));
        if (answered === 0) answeredFirst++;
      });
      t.ok(
        refreshedOthers.every(({ status }) => status === 200),
        'every other family is refreshed',
      );
      t.equal(answeredFirst, others.length, 'before anybody who waits for the row has given up');
      const meanings = (await Promise.all(waiting)).map(meaningOf);
      t.ok(
        meanings.every((meaning) => meaning === 'unavailable'),
        'the held family gets 503 with Retry-After',
      );
      await release();
      const retry = await refresh(targets[0], client, token);
      t.equal(retry.status, 200, 'and is refreshed as soon as its row is free');
      printFigures(t, {
        'requests for the held row': waiting.length,
        'of them 503': meanings.filter((meaning) => meaning === 'unavailable').length,
        'refreshes of other families meanwhile': answeredFirst,
      });
    });
  }
});

t.test('a row that is released in time is rotated by the request that waited', async (t) => {
  const { database, client, targets, tokens } = await setUp(t, 1);
  const token = tokens[0] as string;
  const release = await holdRow(database, familyOf(token));
  const waiting = targets.map((target) => refresh(target, client, token));
  await delay(300);
  await release();
  const [one, other] = (await Promise.all(waiting)) as Reply[] as [Reply & Answer, Reply & Answer];
  t.equal(one.status, 200);
  t.equal(other.status, 200);
  t.equal(one.body.refresh_token, other.body.refresh_token, 'both get one successor');
  t.equal(one.body.access_token, other.body.access_token);
});
