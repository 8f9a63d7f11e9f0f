/**
 * What a rotation costs: the same after 5,000 of them as after one. A family is one row, updated in
 * place, no index covers what a rotation changes, and each page has room for the new version of its rows,
 * so PostgreSQL writes no index entry and the page cleans itself (a heap-only update).
 */
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { createLonelyDatabase } from '../support/database.ts';
import { ALICE_PASSWORD, login, refreshRequest } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const ROTATIONS = 5_000;
const SAMPLE = 500;

// A transaction anywhere on a server, in another database too, keeps pages from being cleaned until it ends.
const server = await startServer(t, {
  database: await createLonelyDatabase(t),
  isRateLimitOn: false,
});
const { authorizationServer, clients, database, resourceOwners } = server.dependencies;
await resourceOwners.create('alice', ALICE_PASSWORD);
await clients.create({
  clientId: 'P1',
  clientType: 'public',
  grantTypes: ['password', 'refresh_token'],
  scope: ['read', 'write'],
});

/** Refreshes through the core's door, without HTTP; answers the next refresh token. */
async function rotate(refreshToken: string): Promise<string> {
  const issued = await authorizationServer.token({
    ...refreshRequest(refreshToken),
    credentials: { method: 'none', clientId: 'P1' },
  });
  return issued.refreshToken?.text as string;
}

interface Counters {
  readonly updates: number;
  readonly heapOnly: number;
  readonly indexEntriesRead: number;
}

/** The statistics of PostgreSQL; a connection that is idle reports what it did late. */
async function readCounters(atLeastUpdates: number): Promise<Counters> {
  for (let attempt = 0; ; attempt++) {
    await database.run({ name: 'flush', text: 'select pg_stat_force_next_flush()' }, []);
    const { rows } = await server.inspect.query(
      `select n_tup_upd::int as updates, n_tup_hot_upd::int as "heapOnly",
         (
           select sum(idx_tup_read)::int from pg_stat_user_indexes where relname = 'token_family'
         ) as "indexEntriesRead"
       from pg_stat_user_tables where relname = 'token_family'`,
    );
    if (rows[0].updates >= atLeastUpdates || attempt === 300) return rows[0];
    await delay(100);
  }
}

const median = (numbers: readonly number[]): number =>
  numbers.toSorted((one, other) => one - other)[numbers.length >> 1] as number;

t.test('RFC 9700 §4.14.2: the 5,000th rotation leaves and costs what the first did', async (t) => {
  // Nobody may have to come and clean up in time.
  await server.inspect.query('alter table token_family set (autovacuum_enabled = off)');
  let { refresh_token: refreshToken } = (await login(server, { id: 'P1' })).body;
  const milliseconds: number[] = [];
  for (let rotation = 0; rotation < ROTATIONS; rotation++) {
    const begin = performance.now();
    refreshToken = await rotate(refreshToken);
    milliseconds.push(performance.now() - begin);
  }

  const { rows } = await server.inspect.query(
    `select generation, count(*) over ()::int as families, cardinality(access_tokens) as "accessTokens"
     from token_family`,
  );
  t.strictSame(rows, [{ generation: ROTATIONS, families: 1, accessTokens: 16 }]);

  const { updates, heapOnly, indexEntriesRead } = await readCounters(ROTATIONS);
  t.ok(updates >= ROTATIONS, `${updates} updates`);
  t.ok(heapOnly >= updates * 0.95, `${heapOnly} of them heap-only`);
  // The family's one entry, by the look-up and by the rotation, and not the thousands of versions there were.
  const perRotation = indexEntriesRead / ROTATIONS;
  t.ok(perRotation < 10, `${perRotation.toFixed()} index entries read per rotation`);

  const first = median(milliseconds.slice(0, SAMPLE));
  const last = median(milliseconds.slice(-SAMPLE));
  t.ok(last < first * 3, `the median went from ${first.toFixed(2)} to ${last.toFixed(2)} ms`);
});
