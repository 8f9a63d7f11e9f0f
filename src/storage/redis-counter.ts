/** Counts requests in Redis, for all instances together. */
import { createHash } from 'node:crypto';
import { Redis } from 'ioredis';
import type { RequestCount, RequestCounter } from '../request-counter.ts';

/** What a limit may add to a request; after that it is counted without Redis. */
const DEADLINE_MILLISECONDS = 40;
/** After this long without an answer the connection is taken for lost. */
const SILENCE_MILLISECONDS = 2000;
const MAXIMUM_RECONNECT_DELAY_MILLISECONDS = 2000;

/** One round trip, and nothing in between: a key without an end would count for ever. */
const COUNT = `
  local count = redis.call('INCR', KEYS[1])
  local left = redis.call('PTTL', KEYS[1])
  if left < 0 then
    redis.call('PEXPIRE', KEYS[1], ARGV[1])
    left = tonumber(ARGV[1])
  end
  return {count, left}`;

export interface RedisCounter extends RequestCounter {
  close(): void;
}

/** Connects by itself, again and again; until then every count fails at once. */
export function createRedisCounter(redisUrl: string): RedisCounter {
  const redis = new Redis(redisUrl, {
    connectionName: 'heirloom',
    keyPrefix: 'heirloom:limit:',
    enableOfflineQueue: false,
    // What has come in one turn of the event loop goes as one write.
    enableAutoPipelining: true,
    connectTimeout: 2000,
    commandTimeout: DEADLINE_MILLISECONDS,
    maxRetriesPerRequest: 0,
    // A Redis that is gone without a word, and one that is a replica since a failover, are left for whoever
    // has their address by now. Otherwise the first would be waited for until TCP gives up, the other for ever.
    socketTimeout: SILENCE_MILLISECONDS,
    reconnectOnError: ({ message }) => message.startsWith('READONLY'),
    retryStrategy: (attempts) => Math.min(attempts * 100, MAXIMUM_RECONNECT_DELAY_MILLISECONDS),
  });
  // A command only says that there is no connection; this says why. Unheard it would be printed.
  let trouble: Error | undefined;
  redis.on('error', (error: Error) => {
    trouble = error;
  });
  redis.on('ready', () => {
    trouble = undefined;
  });
  redis.defineCommand('countRequest', { numberOfKeys: 1, lua: COUNT });
  const commands = redis as unknown as {
    countRequest(key: string, windowMilliseconds: number): Promise<[number, number]>;
  };
  return {
    async increment(key, windowMilliseconds): Promise<RequestCount> {
      // Keys hold addresses and whatever was sent as a client's name, at any length.
      const digest = createHash('sha256').update(key).digest('base64url');
      const counted = commands.countRequest(digest, windowMilliseconds);
      const [count, millisecondsLeft] = await counted.catch((error) => {
        throw trouble ?? error;
      });
      return { count, millisecondsLeft };
    },
    close: () => redis.disconnect(),
  };
}
