/** A log that nobody reads: neither a full disk nor a reader that sleeps or goes holds up a request. */
import t from 'tap';
import { send } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import { freePort } from '../support/port.ts';
import { startGroup, temporaryDirectory, until } from '../support/process.ts';
import { inTurns } from './verify.ts';

t.setTimeout(60_000);

/** Several times as many as a pipe holds, which is 64 KiB. */
const LINES = 1500;

t.test('F18 I7, I8: requests do not wait for a log that nobody reads', async (t) => {
  const { url: DATABASE_URL } = await createTestDatabase(t);
  for (const WORKERS of ['1', '2']) {
    const PORT = String(await freePort());
    const server = startGroup(
      t,
      // The reader of the log says its own process id and nothing else.
      ['/bin/sh', '-c', '"$0" src/main.ts | (sleep 60 & echo "reader $!"; wait)', process.execPath],
      { DATA_DIR: temporaryDirectory(t), DATABASE_URL, PORT, WORKERS, RATE_LIMIT: 'off' },
    );
    const [, reader] = await server.waitForOutput(/reader (\d+)\n/);
    const url = `http://127.0.0.1:${PORT}`;
    await until(() =>
      fetch(`${url}/readyz`).then(
        ({ ok }) => ok,
        () => false,
      ),
    );
    const refuse = async (count: number) => {
      let slowest = 0;
      await inTurns(Array.from({ length: count }), 20, async () => {
        const sentAt = performance.now();
        const { status } = await send(`${url}/token`, { method: 'POST', body: 'x' });
        if (status !== 415) t.fail(`answered ${status}`);
        slowest = Math.max(slowest, performance.now() - sentAt);
      });
      t.ok(slowest < 5000, 'I7: every request is answered in time');
    };
    await refuse(LINES);
    process.kill(Number(reader), 'SIGKILL');
    await refuse(200);
    t.equal((await fetch(`${url}/readyz`)).status, 200, 'I8: the same process serves on');
  }
});
