/** `heirloom event list`: what an operator reads after an alert. */
import t from 'tap';
import { createTestDatabase } from '../support/database.ts';
import { createCast, login, refresh } from '../support/fixtures.ts';
import { heirloom } from '../support/process.ts';
import { startServer } from '../support/server.ts';

const database = await createTestDatabase(t);
const env = { DATABASE_URL: database.url };
const server = await startServer(t, { database });
const { c1 } = await createCast(server);

const run = (...words: string[]) => heirloom(['event', 'list', ...words], { env });
const list = async (...words: string[]) => JSON.parse((await run(...words, '--json')).stdout);

t.test('nothing has happened yet', async (t) => {
  const { code, stdout } = await run();
  t.strictSame([code, stdout], [0, 'There are no events.\n']);
});

t.test('the latest comes first, with whom it was about', async (t) => {
  const spent = (await login(server, c1)).body.refresh_token;
  const second = (await refresh(server, c1, spent)).body.refresh_token;
  await refresh(server, c1, second);
  await refresh(server, c1, spent);
  await heirloom(['user', 'disable', 'alice'], { env });
  const events = await list();
  const [disabled, replay] = events;
  t.equal(events.length, 2);
  t.match(disabled, { kind: 'administration_user_disable', username: 'alice', client_id: null });
  t.match(replay, {
    kind: 'refresh_token_replay',
    client_id: c1.id,
    username: 'alice',
    subject: disabled.subject,
    address: '127.0.0.1',
    family_address: '127.0.0.1',
  });
  t.ok(new Date(disabled.occurred_at) > new Date(replay.occurred_at));
  t.strictSame(await list('--last', '1'), [disabled]);
  const { stdout } = await run();
  t.match(stdout, /^occurred_at +kind +client_id +username +address +family_address\n/);
  t.match(stdout, new RegExp(`refresh_token_replay +${c1.id} +alice +127\\.0\\.0\\.1`));
  t.notMatch(stdout, /hrt_|hat_/);
});

t.test('what an event was about may be gone', async (t) => {
  const [{ subject }] = await list('--last', '1');
  await heirloom(['user', 'delete', 'alice'], { env });
  for (const event of await list()) t.match(event, { username: null, subject });
});

t.test('a count that is none is wrong usage', async (t) => {
  t.equal((await run('--last=1000')).code, 0, 'the most there may be');
  for (const count of ['0', '1001', '-1', 'all', '1.5']) {
    const { code, stderr } = await run(`--last=${count}`);
    t.strictSame([code, stderr], [2, '--last takes a number from 1 to 1000.\n']);
  }
});
