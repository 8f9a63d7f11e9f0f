/** A Redis that is replaced by another one, at the same address, as after a failover. */
import { setTimeout as delay } from 'node:timers/promises';
import { Redis } from 'ioredis';
import t, { type Test } from 'tap';
import type { RequestCounter } from '../../src/request-counter.ts';
import { createRedisCounter } from '../../src/storage/redis-counter.ts';
import { startProxy } from '../support/proxy.ts';
import { needsRedis, startRedis } from '../support/redis.ts';

/** Counts until it can, as often as an instance asks at most; answers after how many seconds. */
async function secondsUntilCounted(counter: RequestCounter): Promise<number> {
  const began = performance.now();
  for (;;) {
    const isCounted = await counter.increment('key', 60_000).then(
      () => true,
      () => false,
    );
    const seconds = (performance.now() - began) / 1000;
    if (isCounted || seconds > 20) return seconds;
    await delay(200);
  }
}

async function startScene(t: Test) {
  const first = await startRedis(t);
  const second = await startRedis(t);
  const proxy = await startProxy(t, first.url);
  const counter = createRedisCounter(proxy.url);
  t.teardown(() => counter.close());
  await secondsUntilCounted(counter);
  proxy.redirect(second.url);
  return { first, second, proxy, counter };
}

t.test('one that has gone without a word is soon given up', needsRedis, async (t) => {
  const { proxy, counter } = await startScene(t);
  proxy.silence();
  const seconds = await secondsUntilCounted(counter);
  t.ok(seconds < 10, `counted after ${seconds} s`);
});

t.test('one that has become a replica is left at once', needsRedis, async (t) => {
  const { first, second, counter } = await startScene(t);
  const administrator = new Redis(first.url);
  t.teardown(() => administrator.disconnect());
  await administrator.replicaof('127.0.0.1', new URL(second.url).port);
  const seconds = await secondsUntilCounted(counter);
  t.ok(seconds < 10, `counted after ${seconds} s`);
});
