/** An outage longer than the retry window: windows count service time, not wall time (`design` Rotation). */
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { TestDatabase } from '../support/database.ts';
import { invalidGrantBody } from '../support/fixtures.ts';
import {
  createLoadClient,
  type Holder,
  insist,
  introspect,
  Ledger,
  type LoadClient,
  login,
  newest,
  openFamilies,
  openFamily,
  orphanedOnce,
  pause,
  peopleNamed,
  refresh,
  refreshOnce,
  revoke,
  type Target,
} from './load.ts';
import {
  ask,
  type SupervisedServer,
  startPostgres,
  startServerProcess,
  superviseServer,
  until,
} from './support.ts';
import {
  figuresOf,
  findUnexpected,
  printFigures,
  verifyHolders,
  verifyLedger,
  verifyLogs,
} from './verify.ts';

t.setTimeout(300_000);

const WINDOW_SECONDS = 2;
/** Longer than the window, and than the 15 s without a pulse that count as an outage. */
const OUTAGE_SECONDS = 18;
const FAMILIES = 40;
/** Holders whose own connection is cut just before the outage, so that some rotation is surely lost. */
const CUT_OFF = 10;

interface Scene {
  readonly database: TestDatabase;
  readonly client: LoadClient;
  readonly servers: readonly SupervisedServer[];
  readonly targets: readonly [Target, Target];
  readonly anyServer: Target;
  readonly ledger: Ledger;
  readonly people: readonly string[];
}

const postgres = await startPostgres(t);

t.test('while the service is up, a parent after its window is a replay', async (t) => {
  const scene = await setUp(t);
  const holder = await openFamily(scene.ledger, scene.anyServer, scene.client, 'person-0');
  await refreshOnce(scene.ledger, scene.database, holder, scene.anyServer);
  await untilWindowCloses(scene, holder);
  await assertReplay(t, scene, holder);
});

t.test('holders of a parent recover when both servers were down past the window', async (t) => {
  const scene = await setUp(t);
  const { servers, database } = scene;
  await outlast(t, scene, {
    async begin() {
      await Promise.all(servers.map((server) => server.kill({ isStayingDown: true })));
    },
    async end() {
      await untilHolds(database, `clock_timestamp() > s.pulse_at + interval '${OUTAGE_SECONDS} s'`);
      // One after the other: windows count from the moment at which the first one resumed.
      for (const server of servers) await server.start();
    },
  });
});

t.test('holders of a parent recover when PostgreSQL was down past the window', async (t) => {
  const scene = await setUp(t);
  const { servers, ledger } = scene;
  const pids = servers.map(({ pid }) => pid());
  await outlast(t, scene, {
    begin: () => postgres.crash(),
    async end() {
      await delay(OUTAGE_SECONDS * 1000);
      await postgres.startAgain();
    },
  });
  t.strictSame(
    servers.map(({ pid }) => pid()),
    pids,
    'I8: the same processes serve on',
  );
  t.ok(ledger.counts.unavailable > 0, 'they had answered 503 meanwhile');
});

t.test('a start that fails before it listens is no service: windows do not count it', async (t) => {
  const { database, client, servers, anyServer, ledger } = await setUp(t);
  const holder = await openFamily(ledger, anyServer, client, 'person-0');
  await refreshOnce(ledger, database, holder, anyServer);
  await Promise.all(servers.map((server) => server.kill({ isStayingDown: true })));
  await beginEarlier(database, 60);
  // No interface has this address (RFC 5737), which shows only when everything else is ready.
  const environment = { HOST: '203.0.113.1', RATE_LIMIT: 'on' };
  await t.rejects(startServerProcess(t, database.url, environment), /Cannot listen/);
  await delay(WINDOW_SECONDS * 1000 + 500);
  await servers[0]?.start();
  const [parent] = holder.refreshTokens as [string];
  const retry = await insist(ledger, () => refresh(anyServer, client, parent));
  t.equal(retry.body.refresh_token, newest(holder.refreshTokens), 'the parent is still good');
});

/** Shifts all that has happened, so that nobody has to wait for a long outage. */
async function beginEarlier(database: TestDatabase, seconds: number): Promise<void> {
  await ask(database, `update server_state set pulse_at = pulse_at - $1 * interval '1 second'`, [
    seconds,
  ]);
  await ask(
    database,
    `update token_family set started_at = started_at - $1 * interval '1 second',
       rotated_at = rotated_at - $1 * interval '1 second',
       retry_until = retry_until - $1 * interval '1 second'`,
    [seconds],
  );
}

async function setUp(t: Test): Promise<Scene> {
  const database = await postgres.createDatabase();
  const people = peopleNamed('person', 8);
  const settings = { retryWindowSeconds: WINDOW_SECONDS };
  const client = await createLoadClient(database, people, settings);
  const servers = [await superviseServer(t, database.url), await superviseServer(t, database.url)];
  const targets = servers.map(({ url }) => url) as [Target, Target];
  const anyServer: Target = () => {
    const urls = servers.flatMap(({ url }) => url() ?? []);
    return urls[Math.floor(Math.random() * urls.length)];
  };
  return { database, client, servers, targets, anyServer, ledger: new Ledger(), people };
}

/** Runs load into an outage and out of it, and checks whose parent is still good and whose is not. */
async function outlast(
  t: Test,
  scene: Scene,
  outage: { begin(): Promise<void>; end(): Promise<void> },
): Promise<void> {
  const { database, client, anyServer, targets, ledger, people, servers } = scene;
  const open = (index: number) =>
    openFamily(ledger, anyServer, client, people[index % people.length] as string);
  const stale = await open(0);
  await refreshOnce(ledger, database, stale, anyServer);
  const late = await open(1);
  const leaver = await open(2);
  const idle = await Promise.all([3, 4, 5, 6, 7].map(open));
  // Its window closes while the service is up, as the last pulse before the outage shows.
  await untilHolds(database, 's.pulse_at > f.retry_until', stale.familyId);

  const holders = await openFamilies(ledger, anyServer, client, people, FAMILIES);
  let isOver = false;
  let areCut = false;
  const load = holders.map(async (holder, index) => {
    const isCut = () => areCut && index < CUT_OFF;
    while (!isOver && holder.logout === undefined) {
      if (isCut()) await pause();
      else await refreshOnce(ledger, database, holder, anyServer, { isCut });
    }
  });
  const others = startOtherLoad(scene, idle, leaver, () => isOver);
  await delay(1500);
  await refreshOnce(ledger, database, late, anyServer);
  areCut = true;
  await delay(50);
  await outage.begin();
  areCut = false;
  await until(() => holders.some(({ isUncertain }) => isUncertain));
  const recovery = until(() => holders.every(({ isUncertain }) => !isUncertain)).then(Date.now);
  await outage.end();
  const recoveredAt = await recovery;
  isOver = true;
  await Promise.all(load);
  await others;
  const orphaned = orphanedOnce(holders);
  t.ok(orphaned.length > 0, 'the outage did leave clients with only the parent');
  await verifyHolders(t, ledger, database, targets, holders);
  verifyLedger(t, ledger);
  t.equal(
    await findUnexpected(ledger, targets, client, leaver.refreshTokens, false),
    0,
    'REV-17: a revocation that is acknowledged is durable',
  );

  await assertReplay(t, scene, stale);
  await untilWindowCloses(scene, late);
  await assertReplay(t, scene, late);
  t.strictSame(
    servers.flatMap(({ crashes }) => crashes),
    [],
    'no process ended by itself',
  );
  verifyLogs(t, servers.map((server) => server.output()).join('\n'));
  printFigures(t, {
    'service down (s)': OUTAGE_SECONDS,
    'retry window (s)': WINDOW_SECONDS,
    ...figuresOf(ledger, holders),
    'all recovered after (ms)': recoveredAt - (await resumedAt(database)).getTime(),
  });
}

/** Logins, introspections and one logout that go on through the outage: trouble is never a verdict. */
async function startOtherLoad(
  { ledger, anyServer, client, people }: Scene,
  idle: readonly Holder[],
  leaver: Holder,
  isOver: () => boolean,
): Promise<void> {
  const introspecting = async () => {
    while (!isOver()) {
      for (const { accessTokens } of idle) {
        const { body } = await insist(ledger, () =>
          introspect(anyServer, client, newest(accessTokens)),
        );
        if (!body.active) ledger.violations.push('a live token was said to be dead');
      }
      await pause();
    }
  };
  const loggingIn = async () => {
    for (const name of people) {
      await insist(ledger, () => login(anyServer, client, name));
      await delay(300);
    }
  };
  // Begins before the outage, which starts 1.5 s later, and lasts into it.
  const leaving = async () => {
    await delay(1600);
    await insist(ledger, () => revoke(anyServer, client, newest(leaver.refreshTokens)));
  };
  await Promise.all([introspecting(), loggingIn(), leaving()]);
}

/** When the service resumed, as it has recorded it: windows are counted from there. */
async function resumedAt(database: TestDatabase): Promise<Date> {
  const [row] = await ask<{ resumed_at: Date }>(database, 'select resumed_at from server_state');
  return row?.resumed_at as Date;
}

/** Waits until a condition on the service's state `s`, and a family `f`, holds by the database's clock. */
const untilHolds = (database: TestDatabase, condition: string, familyId?: string) =>
  until(async () => {
    const [row] = await ask<{ holds: boolean }>(
      database,
      `select ${condition} as holds from server_state s left join token_family f on f.id = $1`,
      [familyId],
    );
    return row?.holds ?? false;
  });

/** Waits until the last rotation's window is over, an outage included. */
const untilWindowCloses = ({ database }: Scene, { familyId }: Holder) =>
  untilHolds(
    database,
    `clock_timestamp() > greatest(f.retry_until, s.resumed_at + interval '${WINDOW_SECONDS} s')`,
    familyId,
  );

/** Presents the parent of the newest token: a replay, which ends the family. */
async function assertReplay(t: Test, scene: Scene, holder: Holder): Promise<void> {
  const { targets, client } = scene;
  const ledger = new Ledger();
  const [first] = targets;
  const [parent, successor] = holder.refreshTokens.slice(-2) as [string, string];
  for (const token of [parent, successor]) {
    const answer = await insist(ledger, () => refresh(first, client, token));
    t.equal(answer.status, 400);
    t.strictSame(answer.body, invalidGrantBody);
  }
  const tokens = [successor, ...holder.accessTokens];
  t.equal(await findUnexpected(ledger, targets, client, tokens, false), 0, 'the family is dead');
}
