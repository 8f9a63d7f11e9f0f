/** A little load of every kind, and what must hold of it when a fault is over. */
import { setTimeout as delay } from 'node:timers/promises';
import type { Test } from 'tap';
import type { TestDatabase } from '../support/database.ts';
import {
  createLoadClient,
  type Holder,
  insist,
  introspect,
  keepRefreshing,
  Ledger,
  type LoadClient,
  login,
  newest,
  openFamilies,
  openFamily,
  pause,
  peopleNamed,
  revoke,
  type Target,
  targetsOf,
} from './load.ts';
import { type ServerProcess, until } from './support.ts';
import {
  constantsOf,
  figuresOf,
  findUnexpected,
  printFigures,
  verifyHolders,
  verifyLedger,
  verifyLogs,
} from './verify.ts';

const FAMILIES = 8;
const LEAVERS = 4;

/** I7: the five seconds of the product, and two for a busy machine. */
const DEADLINE_MILLISECONDS = 7000;
/** I8: within this time of the fault's end, nothing fails any more. */
const RECOVERY_SECONDS = 10;
/** As long without a failure counts as recovered. */
const QUIET_MILLISECONDS = 1500;

export interface Traffic {
  readonly ledger: Ledger;
  readonly client: LoadClient;
  /** Of a session that nobody ends. */
  readonly accessToken: string;
  /** Waits until this many more requests were answered 503. */
  seesTrouble(replies: number): Promise<void>;
  /** To be called when the fault is over: waits for the recovery, ends the load and checks the invariants. */
  verify(t: Test): Promise<void>;
}

/** Somebody for each request of the load; `createTrafficClient` makes them. */
const people = peopleNamed('person', 4);

export const createTrafficClient = (database: TestDatabase): Promise<LoadClient> =>
  createLoadClient(database, people);

/** Refreshes, introspects, logs in and, once the service is in trouble, logs out. */
export async function startTraffic(
  database: TestDatabase,
  servers: readonly [ServerProcess, ...ServerProcess[]],
  client: LoadClient,
): Promise<Traffic> {
  const targets = targetsOf(servers);
  const target: Target = () => servers[Math.floor(Math.random() * servers.length)]?.url;
  const ledger = new Ledger();
  const holders = await openFamilies(ledger, target, client, people, FAMILIES);
  const leavers = await openFamilies(ledger, target, client, people, LEAVERS);
  const idle = await openFamily(ledger, target, client, 'person-0');
  const before = await constantsOf(database, holders);
  const visits: string[] = [];
  let isOver = false;
  const repeat = async (work: (turn: number) => Promise<unknown>) => {
    for (let turn = 0; !isOver; turn++) {
      await work(turn);
      await pause();
    }
  };
  const load = [
    keepRefreshing(ledger, database, holders, target, () => isOver),
    repeat(async () => {
      const { body } = await insist(ledger, () =>
        introspect(target, client, newest(idle.accessTokens)),
      );
      if (!body.active) ledger.violations.push('a live token was said to be dead');
    }),
    repeat(async (turn) => {
      const name = people[turn % people.length] as string;
      const { body } = await insist(ledger, () => login(target, client, name));
      visits.push(body.access_token, body.refresh_token);
    }),
    leave(ledger, leavers, (token) => revoke(target, client, token)),
  ];

  return {
    ledger,
    client,
    accessToken: newest(idle.accessTokens),
    async seesTrouble(replies) {
      const { unavailable } = ledger.counts;
      await until(() => ledger.counts.unavailable >= unavailable + replies);
    },
    async verify(t) {
      const endedAt = performance.now();
      await until(
        () => performance.now() - Math.max(endedAt, ledger.lastTroubleAt) > QUIET_MILLISECONDS,
      );
      isOver = true;
      await Promise.all(load);
      const troubleSeconds = Math.max(0, ledger.lastTroubleAt - endedAt) / 1000;
      t.ok(troubleSeconds < RECOVERY_SECONDS, 'I8: nothing fails long after the fault');
      t.notOk(
        servers.some((server) => server.hasEnded()),
        'I8: the same processes serve on',
      );
      const { slowestMilliseconds } = ledger;
      t.ok(slowestMilliseconds < DEADLINE_MILLISECONDS, 'I7: every answer comes in time');
      await verifyHolders(t, ledger, database, targets, holders);
      t.strictSame(await constantsOf(database, holders), before, 'I12: families are the same');
      const live = [...idle.accessTokens, ...idle.refreshTokens, ...visits];
      t.equal(await findUnexpected(ledger, targets, client, live, true), 0, 'I2');
      const revoked = leavers.flatMap((leaver) => [
        ...leaver.accessTokens,
        ...leaver.refreshTokens,
      ]);
      t.equal(await findUnexpected(ledger, targets, client, revoked, false), 0, 'I3');
      verifyLedger(t, ledger);
      t.equal(ledger.counts.unanswered, 0, 'I5: every request was answered');
      verifyLogs(t, servers.map(({ output }) => output()).join('\n'));
      printFigures(t, {
        ...figuresOf(ledger, holders),
        'slowest answer (ms)': Math.round(slowestMilliseconds),
        'last failure after the fault (s)': troubleSeconds.toFixed(2),
      });
    },
  };
}

/** Logs out one after the other, the first when the service is in trouble: what is acknowledged then is done. */
async function leave(
  ledger: Ledger,
  leavers: readonly Holder[],
  send: (token: string) => ReturnType<typeof revoke>,
): Promise<void> {
  await until(() => ledger.counts.unavailable > 0);
  for (const { refreshTokens } of leavers) {
    await insist(ledger, () => send(newest(refreshTokens)));
    await delay(500);
  }
}
