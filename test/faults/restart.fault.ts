/** PostgreSQL is restarted in order, under load. */
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import {
  createLoadClient,
  insist,
  introspect,
  keepRefreshing,
  Ledger,
  login,
  newest,
  openFamilies,
  peopleNamed,
  revoke,
  type Target,
} from './load.ts';
import { startPostgres, startServerProcess, until } from './support.ts';
import {
  constantsOf,
  figuresOf,
  findUnexpected,
  printFigures,
  verifyHolders,
  verifyLedger,
  verifyLogs,
} from './verify.ts';

t.setTimeout(120_000);

const FAMILIES = 16;
const RESTARTS = 2;
/** I8: within this time of the fault's end, nothing fails any more. */
const RECOVERY_SECONDS = 10;

t.test(
  'F08 I1-I5, I8: restarts of PostgreSQL are 503, log nobody out and undo nothing',
  async (t) => {
    const postgres = await startPostgres(t);
    const database = await postgres.createDatabase();
    const people = peopleNamed('person', 4);
    const client = await createLoadClient(database, people);
    const servers = [
      await startServerProcess(t, database.url),
      await startServerProcess(t, database.url),
    ];
    const targets = servers.map(
      ({ url }): Target =>
        () =>
          url,
    ) as [Target, Target];
    const anyServer: Target = () => servers[Math.random() < 0.5 ? 0 : 1]?.url;
    const ledger = new Ledger();
    const holders = await openFamilies(ledger, anyServer, client, people, FAMILIES);
    const [idle, ...leavers] = await openFamilies(ledger, anyServer, client, people, 9);
    const idleToken = newest(idle?.accessTokens ?? []);
    const constants = await constantsOf(database, holders);

    const visits: string[] = [];
    const dead: string[] = [];
    let isOver = false;
    const loop = async (work: () => Promise<unknown>) => {
      while (!isOver) await work();
    };
    const load = [
      keepRefreshing(ledger, database, holders, anyServer, () => isOver),
      loop(async () => {
        const { body } = await insist(ledger, () => introspect(anyServer, client, idleToken));
        if (!body.active) ledger.violations.push('a live token was said to be dead');
      }),
      loop(async () => {
        const { body } = await insist(ledger, () => login(anyServer, client, 'person-0'));
        visits.push(body.access_token, body.refresh_token);
        await sleep(300);
      }),
      (async () => {
        for (const { accessTokens, refreshTokens } of leavers) {
          await insist(ledger, () => revoke(anyServer, client, newest(refreshTokens)));
          dead.push(newest(refreshTokens), newest(accessTokens));
          await sleep(300);
        }
      })(),
    ];

    for (let restart = 0; restart < RESTARTS; restart++) {
      await sleep(500);
      await postgres.stop();
      await sleep(200);
      await postgres.startAgain();
    }
    const endedAt = performance.now();
    const failed = ledger.counts.unavailable;
    await until(() => performance.now() - Math.max(endedAt, ledger.lastTroubleAt) > 1500);
    isOver = true;
    await Promise.all(load);
    const troubleSeconds = Math.max(0, ledger.lastTroubleAt - endedAt) / 1000;

    t.ok(failed > 0, 'requests met the fault');
    t.ok(troubleSeconds < RECOVERY_SECONDS, 'I8: nothing fails long after the fault');
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
    t.equal(ledger.counts.unanswered, 0, 'I5: every request was answered');
    t.notOk(
      servers.some((server) => server.hasEnded()),
      'I8: the same processes serve on',
    );
    verifyLogs(t, servers.map(({ output }) => output()).join('\n'));
    printFigures(t, {
      restarts: RESTARTS,
      ...figuresOf(ledger, holders),
      'tokens of acknowledged logins': visits.length,
      'tokens acknowledged dead': dead.length,
      'last failure after the last restart (s)': troubleSeconds.toFixed(2),
    });
  },
);
