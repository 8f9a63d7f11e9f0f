/** Every packet between a server and PostgreSQL takes its time. */
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { type Answer, send } from '../support/client.ts';
import {
  createLoadClient,
  insist,
  introspect,
  keepRefreshing,
  Ledger,
  login,
  meaningOf,
  newest,
  openFamilies,
  pause,
  peopleNamed,
  revoke,
} from './load.ts';
import { startSlowNetwork } from './slow-network.ts';
import { startPostgres, startServerProcess, until } from './support.ts';
import {
  figuresOf,
  findUnexpected,
  printFigures,
  verifyHolders,
  verifyLedger,
  verifyLogs,
} from './verify.ts';

t.setTimeout(120_000);

const FAMILIES = 8;
/** More than share the statements that are in flight: some wait for those of others, and for others after them. */
const QUESTIONS = 600;
/** I8: within this time of the fault's end, nothing fails any more. */
const RECOVERY_SECONDS = 10;

t.test('F12 I5, I7, I8: a slow network to PostgreSQL is 503 in time, and no verdict', async (t) => {
  const postgres = await startPostgres(t);
  const database = await postgres.createDatabase();
  const people = peopleNamed('person', 4);
  const client = await createLoadClient(database, people);
  const network = await startSlowNetwork(t, database.url);
  const server = await startServerProcess(t, network.url);
  const target = () => server.url;
  const ledger = new Ledger();
  const holders = await openFamilies(ledger, target, client, people, FAMILIES);
  const [idle, ...leavers] = await openFamilies(ledger, target, client, people, 9);
  const idleToken = newest(idle?.accessTokens ?? []);

  const health = (path: string): Promise<Answer> => send(`${server.url}${path}`);
  const visits: string[] = [];
  const dead: string[] = [];
  let isOver = false;
  const loop = async (work: () => Promise<unknown>) => {
    while (!isOver) await work();
  };
  const ask = async () => {
    const { body } = await insist(ledger, () => introspect(target, client, idleToken));
    if (!body.active) ledger.violations.push('a live token was said to be dead');
  };
  const load = [
    keepRefreshing(ledger, database, holders, target, () => isOver),
    ...Array.from({ length: 4 }, () => loop(ask)),
    loop(async () => {
      const { body } = await insist(ledger, () => login(target, client, 'person-0'));
      visits.push(body.access_token, body.refresh_token);
      await sleep(300);
    }),
    (async () => {
      for (const { accessTokens, refreshTokens } of leavers) {
        if (isOver) return;
        await insist(ledger, () => revoke(target, client, newest(refreshTokens)));
        dead.push(newest(refreshTokens), newest(accessTokens));
        await pause();
      }
    })(),
  ];

  network.delay(200);
  const before = ledger.counts.granted;
  await sleep(1000);
  t.ok(ledger.counts.granted > before, 'what takes less than its deadline is answered');

  network.delay(20_000);
  let unanswered = QUESTIONS;
  const questions = Array.from({ length: QUESTIONS }, async () => {
    const reply = await introspect(target, client, idleToken);
    unanswered--;
    ledger.note(reply);
  });
  const start = t.rejects(
    startServerProcess(t, network.url),
    /Cannot migrate the database at 127\.0\.0\.1:\d+\/heirloom_\w+: timeout/,
    'a start ends with a line',
  );
  const isReady = health('/readyz');
  t.equal((await health('/livez')).status, 200, 'the process says that it is alive');
  await sleep(7000);
  t.equal(unanswered, 0, 'I7: whoever has waited for seven seconds has an answer');
  t.equal(meaningOf(await isReady), 'unavailable', 'and that it is not ready');
  await start;
  network.delay(2000);
  await sleep(1000);
  const failed = ledger.counts.unavailable;

  network.delay(0);
  const endedAt = performance.now();
  await until(() => performance.now() - Math.max(endedAt, ledger.lastTroubleAt) > 1000);
  isOver = true;
  await Promise.all([...load, ...questions]);
  const troubleSeconds = Math.max(0, ledger.lastTroubleAt - endedAt) / 1000;

  t.ok(failed > 0, 'requests met the fault');
  t.ok(troubleSeconds < RECOVERY_SECONDS, 'I8: nothing fails long after the fault');
  t.equal((await health('/readyz')).status, 200, 'I8: it is ready again');
  await verifyHolders(t, ledger, database, [target], holders);
  t.equal(
    await findUnexpected(ledger, [target], client, visits, true),
    0,
    'I2: every token of an acknowledged login is active',
  );
  t.equal(
    await findUnexpected(ledger, [target], client, dead, false),
    0,
    'I3: no acknowledged death is undone',
  );
  verifyLedger(t, ledger);
  t.equal(ledger.counts.unanswered, 0, 'I7: every request was answered');
  t.notOk(server.hasEnded(), 'I8: the same process serves on');
  verifyLogs(t, server.output());
  printFigures(t, {
    ...figuresOf(ledger, holders),
    'tokens of acknowledged logins': visits.length,
    'tokens acknowledged dead': dead.length,
    'last failure after the end of the fault (s)': troubleSeconds.toFixed(2),
  });
});
