/** Limits on requests, whatever their outcome: by network before a body is read, by client and grant after it. */
import rateLimit from '@fastify/rate-limit';
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { LRUCache } from 'lru-cache';
import type { Client } from '../oauth/client.ts';
import { TemporarilyUnavailable } from '../oauth/errors.ts';
import type { RequestCounter } from '../request-counter.ts';
import { networkOf } from './address.ts';

/** Adds the limits that routes ask for in their configuration, counted by `counter`. */
export async function addRequestLimits(
  app: FastifyInstance,
  counter: RequestCounter,
): Promise<void> {
  await app.register(rateLimit, {
    global: false,
    enableDraftSpec: true,
    keyGenerator: networkOf,
    store: storeOver(counter),
    errorResponseBuilder: () => Object.assign(new Error('rate limit'), { statusCode: 429 }),
  });
}

/** How many requests of one kind a family may make or, without a family, a client from one network. */
export interface ClientLimit {
  /** Different for each limit: counts of one name are one count. */
  readonly name: string;
  readonly requests: number;
  readonly windowSeconds: number;
  /**
   * Answers 503 in place of 429, for clients that would take any 4xx for the end of a session, and asks
   * them back within a quarter of their retry window.
   */
  readonly isOverload?: boolean;
}

/**
 * Counts a request of a client that is authenticated.
 *
 * @throws TemporarilyUnavailable for `isOverload`, otherwise an error of status 429
 */
export type CheckClientLimit = (
  request: FastifyRequest,
  reply: FastifyReply,
  client: Client,
  heldFamilyId: string | undefined,
) => Promise<void>;

/**
 * Builds the check; it lets everything pass where limits are switched off.
 *
 * A family has a count of its own. Without one, the network keeps a caller from spending what belongs to
 * the client's others.
 */
export function createClientLimit(
  app: FastifyInstance,
  { requests, windowSeconds, isOverload, ...limit }: ClientLimit,
): CheckClientLimit {
  if (!app.hasDecorator('createRateLimit')) return async () => {};
  const keys = new WeakMap<FastifyRequest, string>();
  const options = {
    ...limit,
    max: requests,
    timeWindow: windowSeconds * 1000,
    keyGenerator: (request: FastifyRequest) => keys.get(request) as string,
  };
  const count = app.createRateLimit(options);
  return async (request, reply, { clientId, lifetimes }, heldFamilyId) => {
    keys.set(request, heldFamilyId ?? `${clientId} ${networkOf(request)}`);
    const counted = await count(request);
    if (counted.isAllowed || !counted.isExceeded) return;
    const wait = Math.max(1, counted.ttlInSeconds);
    if (isOverload) {
      const pauseSeconds = Math.max(1, Math.floor(lifetimes.retryWindowSeconds / 4));
      const retryAfterSeconds = Math.min(wait, pauseSeconds);
      throw new TemporarilyUnavailable(`too many requests: ${limit.name}`, { retryAfterSeconds });
    }
    reply.headers({
      'retry-after': wait,
      // Those of the limit that was met, in place of the one before the body.
      'ratelimit-limit': requests,
      'ratelimit-remaining': 0,
      'ratelimit-reset': wait,
    });
    throw Object.assign(new Error('client limit'), { statusCode: 429, clientId });
  };
}

type Answer = (error: Error | null, result?: { current: number; ttl: number }) => void;

interface StoreOptions {
  readonly name?: string;
  readonly routeInfo?: { readonly url?: string };
}

/** Keys over their limit that are remembered; whoever floods is among the last that asked. */
const MAXIMUM_EXCEEDED = 10_000;

/** The store that the plugin wants: a class that it makes an instance of, with a child for each limit. */
function storeOver(counter: RequestCounter) {
  const exceeded = new LRUCache<string, number>({ max: MAXIMUM_EXCEEDED });
  return class Store {
    readonly #name: string;

    constructor({ name, routeInfo }: StoreOptions) {
      this.#name = name ?? routeInfo?.url ?? '';
    }

    incr(key: string, answer: Answer, windowMilliseconds: number, max: number): void {
      const name = `${this.#name} ${key}`;
      // Counts only grow: who is over the limit stays so until the window ends, and nobody need be asked.
      const endsAt = exceeded.get(name) ?? 0;
      const ttl = endsAt - performance.now();
      if (ttl > 0) {
        answer(null, { current: max + 1, ttl });
        return;
      }
      counter.increment(name, windowMilliseconds).then(
        ({ count, millisecondsLeft }) => {
          if (count > max) exceeded.set(name, performance.now() + millisecondsLeft);
          answer(null, { current: count, ttl: millisecondsLeft });
        },
        (error) => answer(error),
      );
    }

    child(options: object): Store {
      return new Store(options);
    }
  };
}
