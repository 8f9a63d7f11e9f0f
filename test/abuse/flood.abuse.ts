/**
 * The server under attack, and what its ordinary users notice: a table of each attack beside the same
 * server at rest, in one run on one machine.
 */
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { Worker } from 'node:worker_threads';
import t from 'tap';
import { arrange, startServerProcess } from '../faults/support.ts';
import { createTestDatabase } from '../support/database.ts';
import { needsRedis, startRedis } from '../support/redis.ts';
import type { AttackName, AttackOptions, Outcome } from './attacks.ts';
import { type Experience, startOrdinaryUsers } from './ordinary-users.ts';

const password = 'a phrase that only they know';
const here = import.meta.dirname;

/** Between requests and their limits there is room for a machine with other things to do. */
const MAXIMUM_SLOWDOWN = 5;
/** K hashes of 19 MiB at a time, K being the cores, and 100 MiB. */
const MAXIMUM_HASHING_MEBIBYTES = availableParallelism() * 19 + 100;
/** What is taken for thousands of connections and requests, and not given back at once. */
const MAXIMUM_GROWTH_MEBIBYTES = 256;
/** ASVS 15.1.3: longer, and nobody waits for the answer any more. */
const MAXIMUM_ANSWER_MILLISECONDS = 5000;
/** Buckets of unknown names, and a few keys for each address; the attackers have 1,000s of addresses. */
const MAXIMUM_COUNTERS = 70_000;

interface Line {
  readonly name: string;
  readonly outcome: Outcome;
  readonly introspectionMilliseconds: number;
  readonly refreshMilliseconds: number;
  readonly delayMilliseconds: number;
  readonly memoryMebibytes: number;
  readonly counters: number;
  readonly failures: readonly number[];
}

const nothing: Outcome = { statuses: {}, slowestMilliseconds: 0 };

const p99 = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length * 0.99)] ?? Number.NaN;

t.test('ordinary users hardly notice an attack', { ...needsRedis, timeout: 300_000 }, async (t) => {
  const database = await createTestDatabase(t);
  const api = await arrange(database.url, async ({ clients, resourceOwners }) => {
    const grantTypes = ['password', 'refresh_token'];
    await clients.create({ clientId: 'app', clientType: 'public', grantTypes, scope: ['read'] });
    for (const name of ['person-0', 'ordinary']) await resourceOwners.create(name, password);
    const { clientSecret } = await clients.create({
      clientId: 'api',
      clientType: 'confidential',
      introspectionRight: 'any',
    });
    return { id: 'api', secret: clientSecret as string };
  });
  await database.inspect.query(
    `insert into resource_owner (username, password_hash)
     select 'person-' || n, o.password_hash from generate_series(1, 299) n, resource_owner o
     where o.username = 'person-0'`,
  );
  const redis = await startRedis(t);
  const server = await startServerProcess(t, database.url, {
    NODE_OPTIONS: `--import=${join(here, 'monitor.ts')}`,
    RATE_LIMIT: 'on',
    TRUST_PROXY: '1',
    REDIS_URL: redis.url,
  });
  const users = await startOrdinaryUsers({ url: server.url, api, username: 'ordinary', password });
  const monitored = () =>
    server
      .output()
      .split('\n')
      .filter((line) => line.startsWith('monitor '))
      .map((line) => JSON.parse(line.slice('monitor '.length)));

  const measure = async (name: string, work: () => Promise<Outcome>): Promise<Line> => {
    const from = monitored().length;
    users.take();
    const outcome = await work();
    const { introspections, refreshes, failures }: Experience = users.take();
    const samples = monitored().slice(from);
    const { rows } = await database.inspect.query('select count(*) from failure_counter');
    return {
      name,
      outcome,
      introspectionMilliseconds: p99(introspections),
      refreshMilliseconds: p99(refreshes),
      delayMilliseconds: p99(samples.map(({ delayMilliseconds }) => delayMilliseconds)),
      memoryMebibytes: Math.max(...samples.map(({ memoryMebibytes }) => memoryMebibytes)),
      counters: Number(rows[0].count),
      failures,
    };
  };
  const attack = (name: AttackName) => () =>
    new Promise<Outcome>((resolve, reject) => {
      const workerData: AttackOptions = { attack: name, url: server.url, password };
      const worker = new Worker(join(here, 'attacks.ts'), { workerData });
      worker.once('message', resolve);
      worker.once('error', reject);
    });

  // Code that runs for the first time is slow for another reason.
  await delay(3000);
  const lines = [
    await measure('at rest', async () => {
      await delay(8000);
      return nothing;
    }),
    await measure('300 logins at once', attack('logins')),
    await measure('300 guesses at one account', attack('guesses')),
    await measure('1,000 slow connections', attack('slow')),
    await measure('300 bodies octet by octet', attack('trickle')),
    await measure('6,000 random names', attack('names')),
    await measure('500 connections reset in mid-hash', attack('resets')),
    await measure('Redis stopped', async () => {
      await delay(1500);
      await redis.stop();
      await delay(3500);
      return nothing;
    }),
    await measure('Redis silent', async () => {
      await redis.start();
      await delay(2000);
      redis.freeze();
      await delay(3500);
      redis.thaw();
      return nothing;
    }),
  ];
  await users.stop();
  print(lines);

  const [rest, ...attacks] = lines as [Line, ...Line[]];
  const [logins] = attacks as [Line];
  await t.test(
    'DOS-05 ASVS 15.1.3: of 300 logins at once some are verified, and the rest is shed in time',
    async (t) => {
      const { statuses, slowestMilliseconds } = logins.outcome;
      t.strictSame(Object.keys(statuses), ['200', '400', '503']);
      t.ok(slowestMilliseconds < MAXIMUM_ANSWER_MILLISECONDS, `${slowestMilliseconds} ms`);
    },
  );
  await t.test('DOS-06 ASVS 13.1.3: memory stays near that of the hashes', async (t) => {
    const limit = rest.memoryMebibytes + MAXIMUM_HASHING_MEBIBYTES;
    t.ok(logins.memoryMebibytes <= limit, `${logins.memoryMebibytes} of ${limit} MiB`);
  });
  for (const line of attacks) {
    await t.test(line.name, async (t) => {
      t.strictSame(line.failures, [], 'everybody else is answered');
      for (const whose of ['introspectionMilliseconds', 'refreshMilliseconds'] as const) {
        t.ok(line[whose] <= MAXIMUM_SLOWDOWN * rest[whose], whose);
      }
      t.ok(line.memoryMebibytes <= rest.memoryMebibytes + MAXIMUM_GROWTH_MEBIBYTES, 'memory');
      t.ok(line.counters <= MAXIMUM_COUNTERS, 'counters');
    });
  }
  t.notOk(server.hasEnded());
});

function print(lines: readonly Line[]): void {
  const [rest] = lines as [Line];
  const rows = lines.map((line) => ({
    attack: line.name,
    'introspection p99': `${line.introspectionMilliseconds.toFixed(1)} ms`,
    '× rest': (line.introspectionMilliseconds / rest.introspectionMilliseconds).toFixed(1),
    'refresh p99': `${line.refreshMilliseconds.toFixed(1)} ms`,
    '× at rest': (line.refreshMilliseconds / rest.refreshMilliseconds).toFixed(1),
    'loop delay p99': `${line.delayMilliseconds.toFixed(0)} ms`,
    memory: `${line.memoryMebibytes.toFixed(0)} MiB`,
    counters: line.counters,
    answers: JSON.stringify(line.outcome.statuses),
  }));
  console.table(rows);
}
