/** Every connection to PostgreSQL is ended each second, under load. */
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
  login,
  meaningOf,
  newest,
  openFamilies,
  openFamily,
  pause,
  peopleNamed,
  refresh,
  type Target,
  targetsOf,
} from './load.ts';
import { ask, holdRow, startPostgres, startServerProcess, until } from './support.ts';
import {
  figuresOf,
  findUnexpected,
  printFigures,
  verifyHolders,
  verifyLedger,
  verifyLogs,
} from './verify.ts';

t.setTimeout(120_000);

const FAMILIES = 40;
const STRIKES = 10;
const postgres = await startPostgres(t);

/** I8: within this time of the fault's end, nothing fails any more. */
const RECOVERY_SECONDS = 10;

t.test('F10 I1-I12: ending every connection each second is never a verdict', async (t) => {
  const database = await postgres.createDatabase();
  const people = peopleNamed('person', 8);
  const visitors = peopleNamed('visitor', 8);
  const client = await createLoadClient(database, [...people, ...visitors]);
  const servers = [
    await startServerProcess(t, database.url),
    await startServerProcess(t, database.url),
  ];
  const targets = targetsOf(servers);
  const anyServer: Target = () => servers[Math.random() < 0.5 ? 0 : 1]?.url;
  const ledger = new Ledger();
  const holders = await openFamilies(ledger, anyServer, client, people, FAMILIES);
  const idle = await openFamily(ledger, anyServer, client, 'person-0');

  let isOver = false;
  const load = [
    keepRefreshing(ledger, database, holders, anyServer, () => isOver),
    (async () => {
      while (!isOver) {
        const [token] = idle.accessTokens as [string];
        const { body } = await insist(ledger, () => introspect(anyServer, client, token));
        if (!body.active) ledger.violations.push('a live token was said to be dead');
      }
    })(),
    (async () => {
      for (let visit = 0; !isOver; visit++) {
        const name = visitors[visit % visitors.length] as string;
        await insist(ledger, () => login(anyServer, client, name));
        await pause();
      }
    })(),
  ];

  const ended = await strikeEachSecond(database);
  const endedAt = performance.now();
  const failedDuringFault = ledger.counts.unavailable;
  await until(() => performance.now() - Math.max(endedAt, ledger.lastTroubleAt) > 3000);
  isOver = true;
  await Promise.all(load);
  const troubleSeconds = Math.max(0, ledger.lastTroubleAt - endedAt) / 1000;

  t.ok(failedDuringFault > 0, 'requests were in flight when their connection ended');
  t.ok(troubleSeconds < RECOVERY_SECONDS, 'I8: nothing fails long after the fault');
  await verifyHolders(t, ledger, database, targets, holders);
  const { accessTokens, refreshTokens } = idle;
  const untouched = [...accessTokens, ...refreshTokens];
  t.equal(await findUnexpected(ledger, targets, client, untouched, true), 0);
  verifyLedger(t, ledger);
  t.equal(ledger.counts.unanswered, 0, 'I5: every request was answered');
  t.notOk(
    servers.some((server) => server.hasEnded()),
    'I8: the same processes serve on',
  );
  verifyLogs(t, servers.map(({ output }) => output()).join('\n'));
  printFigures(t, {
    'connections ended': `${ended}, in ${STRIKES} strikes`,
    ...figuresOf(ledger, holders),
    'last failure after the last strike (s)': troubleSeconds.toFixed(2),
  });
});

/** Ends every connection of the servers, once a second; says how many. */
async function strikeEachSecond(database: TestDatabase): Promise<number> {
  let ended = 0;
  for (let strike = 0; strike < STRIKES; strike++) {
    await delay(1000);
    const [row] = await ask<{ ended: number }>(
      database,
      `select count(pg_terminate_backend(pid))::int as ended from pg_stat_activity
       where datname = current_database() and pid <> pg_backend_pid()
         and backend_type = 'client backend' and application_name <> 'inspect'`,
    );
    ended += row?.ended ?? 0;
  }
  return ended;
}

t.test('a connection that ends while it waits for a row costs one request', async (t) => {
  const database = await postgres.createDatabase();
  const client = await createLoadClient(database, ['alice']);
  const server = await startServerProcess(t, database.url);
  const target = () => server.url;
  const holder = await openFamily(new Ledger(), target, client, 'alice');
  const token = newest(holder.refreshTokens);
  const release = await holdRow(database, familyOf(token));
  const waiting = refresh(target, client, token);
  await until(async () => {
    const ended = await ask(
      database,
      `select pg_terminate_backend(pid) from pg_stat_activity
       where datname = current_database() and wait_event_type = 'Lock'`,
    );
    return ended.length > 0;
  });
  t.equal(meaningOf(await waiting), 'unavailable', 'I5: 503 with Retry-After');
  await release();
  t.equal((await refresh(target, client, token)).status, 200, 'the retry is granted');
  t.notOk(server.hasEnded(), 'I8: the same process serves on');
});
