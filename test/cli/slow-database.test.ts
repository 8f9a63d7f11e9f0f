/** Commands beside a database that takes its time. */
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { loadConfig } from '../../src/config.ts';
import { heirloom } from '../support/process.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t);
const { inspect, databaseUrl } = server;

t.test('a command waits for a row for longer than a request does', async (t) => {
  await server.dependencies.clients.create({ clientId: 'web', clientType: 'public' });
  const holder = await inspect.connect();
  t.teardown(() => holder.release());
  await holder.query('begin');
  await holder.query("select from client where client_id = 'web' for update");

  const command = heirloom(['client', 'disable', 'web'], { env: { DATABASE_URL: databaseUrl } });
  const { lockTimeoutSeconds } = loadConfig({});
  const waitingStatement = `select from pg_stat_activity where datname = current_database()
    and wait_event_type = 'Lock' and clock_timestamp() - query_start > $1 * interval '1 second'`;
  const isWaiting = async () =>
    (await inspect.query(waitingStatement, [lockTimeoutSeconds * 1.5])).rowCount === 1;
  let hasEnded = false;
  void command.then(() => {
    hasEnded = true;
  });
  while (!(await isWaiting()) && !hasEnded) await delay(50);
  t.notOk(hasEnded, 'it has not given up');

  await holder.query('rollback');
  t.match(await command, { code: 0, stderr: '' });
});
