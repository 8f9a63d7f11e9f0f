import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import {
  createLoadClient,
  Ledger,
  openFamily,
  peopleNamed,
  refreshOnce,
  type Target,
} from './load.ts';
import { startPostgres, superviseServer } from './support.ts';

t.setTimeout(100_000);
t.test('rate', async (t) => {
  const postgres = await startPostgres(t);
  const database = await postgres.createDatabase();
  const names = peopleNamed('k', 8);
  const client = await createLoadClient(database, names);
  const t0 = performance.now();
  const servers = [await superviseServer(t, database.url), await superviseServer(t, database.url)];
  t.comment(`start ${performance.now() - t0}`);
  const any: Target = () => servers[Math.floor(Math.random() * 2)]?.url();
  const ledger = new Ledger();
  const holders = await Promise.all(
    Array.from({ length: 40 }, (_, i) => openFamily(ledger, any, client, names[i % 8] as string)),
  );
  for (const copies of [1, 2]) {
    let over = false;
    const n0 = holders.reduce((s, h) => s + h.refreshTokens.length, 0);
    const work = holders.map(async (h, index) => {
      while (!over && !h.logout)
        await refreshOnce(ledger, database, h, any, { copies: index % 4 === 0 ? copies : 1 });
    });
    await delay(5000);
    over = true;
    await Promise.all(work);
    t.comment(
      `copies ${copies}: ${(holders.reduce((s, h) => s + h.refreshTokens.length, 0) - n0) / 5}/s ${JSON.stringify(ledger.counts)}`,
    );
  }
  t.comment(
    servers
      .map((s) => s.output())
      .join('\n')
      .slice(0, 3000),
  );
});
