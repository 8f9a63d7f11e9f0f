/** Every packet between a server and PostgreSQL takes its time. */
import { setTimeout as sleep } from 'node:timers/promises';
import t from 'tap';
import { send } from '../support/client.ts';
import { introspect, meaningOf } from './load.ts';
import { startSlowNetwork } from './slow-network.ts';
import { startPostgres, startServerProcess, until } from './support.ts';
import { createTrafficClient, startTraffic } from './traffic.ts';

t.setTimeout(120_000);

/** More than share the statements that are in flight: some wait for those of others, and for others after them. */
const QUESTIONS = 600;

t.test('F12 I1-I12: a slow network to PostgreSQL is 503 in time, and no verdict', async (t) => {
  const postgres = await startPostgres(t);
  const database = await postgres.createDatabase();
  const client = await createTrafficClient(database);
  const network = await startSlowNetwork(t, database.url);
  const server = await startServerProcess(t, network.url);
  const traffic = await startTraffic(database, [server], client);
  const { ledger } = traffic;
  const health = (path: string) => send(`${server.url}${path}`);

  network.delay(200);
  // More than are under way: these would be answered anyway.
  const enough = ledger.counts.granted + 30;
  await until(() => ledger.counts.granted > enough);
  t.pass('what takes less than its deadline is answered');

  network.delay(20_000);
  const questions = Array.from({ length: QUESTIONS }, async () =>
    ledger.note(await introspect(() => server.url, client, traffic.accessToken)),
  );
  const start = t.rejects(
    startServerProcess(t, network.url),
    /Cannot migrate the database at 127\.0\.0\.1:\d+\/heirloom_\w+: timeout/,
    'a start ends with a line',
  );
  const isReady = health('/readyz');
  t.equal((await health('/livez')).status, 200, 'the process says that it is alive');
  t.equal(meaningOf(await isReady), 'unavailable', 'and that it is not ready');
  await start;
  await Promise.all(questions);
  await traffic.seesTrouble(1);

  network.delay(2000);
  await sleep(1000);
  network.delay(0);
  await traffic.verify(t);
  t.equal((await health('/readyz')).status, 200, 'I8: it is ready again');
});
