/** Processes killed and PostgreSQL crashed under load. */
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import type { TestDatabase } from '../support/database.ts';
import {
  createLoadClient,
  familyOf,
  insist,
  introspect,
  keepRefreshing,
  Ledger,
  type LoadClient,
  login,
  newest,
  openFamilies,
  openFamily,
  orphanedOnce,
  pause,
  peopleNamed,
  refreshOnce,
  revoke,
  type Target,
} from './load.ts';
import {
  type FaultPostgres,
  type SupervisedServer,
  startPostgres,
  superviseServer,
  until,
} from './support.ts';
import {
  constantsOf,
  figuresOf,
  findUnexpected,
  printFigures,
  verifyHolders,
  verifyLedger,
  verifyLogs,
} from './verify.ts';

t.setTimeout(300_000);

const KILLS = 30;
/** Counts of kills at which PostgreSQL is crashed as well. */
const POSTGRES_CRASHES = [4, 12, 18, 26];
const FAMILIES = 40;
/** A person may have 100 sessions, and logins whose answer is lost count too. */
const MAXIMUM_VISITS = 60;

const pick = <Item>(items: readonly Item[]): Item | undefined =>
  items[Math.floor(Math.random() * items.length)];

t.test('F01 I1-I12: kills and crashes of PostgreSQL log nobody out and undo nothing', async (t) => {
  const postgres = await startPostgres(t);
  const database = await postgres.createDatabase();
  const keepers = peopleNamed('keeper', 8);
  const leavers = peopleNamed('leaver', 4);
  const visitors = peopleNamed('visitor', 3);
  const client = await createLoadClient(database, [...keepers, ...leavers, ...visitors]);
  const servers = [await superviseServer(t, database.url), await superviseServer(t, database.url)];
  const anyServer: Target = () => pick(servers.flatMap((server) => server.url() ?? []));

  const ledger = new Ledger();
  const holders = await openFamilies(ledger, anyServer, client, keepers, FAMILIES);
  const constants = await constantsOf(database, holders);

  let isOver = false;
  const loop = async (work: () => Promise<unknown>) => {
    while (!isOver) await work();
  };
  const visits: string[] = [];
  const dead: string[] = [];
  const load = [
    keepRefreshing(ledger, database, holders, anyServer, () => isOver),
    ...leavers.map((name) =>
      loop(() => comeAndGo(ledger, database, anyServer, client, name, dead)),
    ),
    ...visitors.map(async (name) => {
      for (let visit = 0; visit < MAXIMUM_VISITS && !isOver; visit++) {
        const { body } = await insist(ledger, () => login(anyServer, client, name));
        visits.push(body.access_token, body.refresh_token);
        await delay(300);
      }
    }),
    loop(() => spotCheck(ledger, anyServer, client, visits, true)),
    loop(() => spotCheck(ledger, anyServer, client, dead, false)),
  ];

  await injectFaults(servers, postgres);
  isOver = true;
  await Promise.all(load);
  await Promise.all(servers.map((server) => server.start()));
  const orphaned = orphanedOnce(holders);

  // What was acknowledged is durable only if it survives one more crash.
  await postgres.crash();
  await postgres.startAgain();
  const targets = servers.map(({ url }) => url) as [Target, Target];
  await verifyHolders(t, ledger, database, targets, holders);
  t.equal(
    await findUnexpected(ledger, targets, client, visits, true),
    0,
    'I2: every token of an acknowledged login is active',
  );
  t.equal(
    await findUnexpected(ledger, targets, client, dead, false),
    0,
    'I3: no acknowledged death is undone',
  );
  t.strictSame(await constantsOf(database, holders), constants, 'I12: nothing else has changed');
  verifyLedger(t, ledger);
  t.strictSame(
    servers.flatMap(({ crashes }) => crashes),
    [],
    'no process ended but those that were killed',
  );
  t.ok(orphaned.length > 0, 'the faults did leave clients with only the parent');
  verifyLogs(t, servers.map((server) => server.output()).join('\n'));
  printFigures(t, {
    'kill -9 of a server': KILLS,
    'crashes of PostgreSQL': POSTGRES_CRASHES.length + 1,
    ...figuresOf(ledger, holders),
    'tokens of acknowledged logins': visits.length,
    'tokens acknowledged dead': dead.length,
  });
});

/**
 * Kills one server at a random moment and soon the other, whether the first one is back or not, and
 * begins anew when both serve; now and then PostgreSQL crashes before that.
 */
async function injectFaults(
  servers: readonly SupervisedServer[],
  postgres: FaultPostgres,
): Promise<void> {
  for (let killed = 0; killed < KILLS; killed += 2) {
    await until(() => servers.every(({ url }) => url() !== undefined));
    if (POSTGRES_CRASHES.includes(killed)) {
      await delay(Math.random() * 500);
      await postgres.crash();
      await delay(Math.random() * 500);
      await postgres.startAgain();
    }
    const restarts: Promise<void>[] = [];
    for (const server of servers) {
      await delay(Math.random() * 700);
      restarts.push(server.kill());
    }
    await Promise.all(restarts);
  }
}

/** Logs in, refreshes, and ends an access token or the session; what is acknowledged as dead is noted. */
async function comeAndGo(
  ledger: Ledger,
  database: TestDatabase,
  target: Target,
  client: LoadClient,
  name: string,
  dead: string[],
): Promise<void> {
  const holder = await openFamily(ledger, target, client, name);
  const rounds = 1 + Math.floor(Math.random() * 3);
  for (let round = 0; round < rounds && holder.logout === undefined; round++) {
    await refreshOnce(ledger, database, holder, target);
  }
  const accessToken = newest(holder.accessTokens);
  await insist(ledger, () => revoke(target, client, accessToken));
  dead.push(accessToken);
  await refreshOnce(ledger, database, holder, target);
  // The current refresh token, or a spent one: who lost the last answer must be able to log out, too.
  const shown = pick(holder.refreshTokens) as string;
  await insist(ledger, () => revoke(target, client, shown));
  dead.push(newest(holder.refreshTokens), newest(holder.accessTokens), shown);
  await delay(100);
}

/** Introspects one of these tokens, whose state has been acknowledged. */
async function spotCheck(
  ledger: Ledger,
  target: Target,
  client: LoadClient,
  tokens: readonly string[],
  isActive: boolean,
): Promise<void> {
  const token = pick(tokens);
  if (token === undefined) return pause();
  const { body } = await insist(ledger, () => introspect(target, client, token));
  if (body.active !== isActive) {
    ledger.violations.push(`a token of ${familyOf(token)} was said to be active: ${body.active}`);
  }
  await delay(10);
}
