/** Request limits per client and address, counted after the body was read and before anything is looked up. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import { networkOf } from './address.ts';

export interface ClientLimit {
  readonly requests: number;
  readonly windowSeconds: number;
}

export type CheckClientLimit = (
  request: FastifyRequest,
  reply: FastifyReply,
  clientId: string | undefined,
) => Promise<void>;

/**
 * Builds the check; it lets everything pass where limits are switched off.
 *
 * The client is what the request says, since nothing is verified yet; the address keeps one caller
 * from spending what belongs to the client's others.
 */
export function createClientLimit(
  app: FastifyInstance,
  { requests, windowSeconds }: ClientLimit,
): CheckClientLimit {
  if (!app.hasDecorator('createRateLimit')) return async () => {};
  const clientIds = new WeakMap<FastifyRequest, string>();
  const count = app.createRateLimit({
    max: requests,
    timeWindow: windowSeconds * 1000,
    keyGenerator: (request) => `${clientIds.get(request)} ${networkOf(request)}`,
  });
  return async (request, reply, clientId = '') => {
    clientIds.set(request, clientId);
    const counted = await count(request);
    if (counted.isAllowed || !counted.isExceeded) return;
    reply.header('retry-after', Math.max(1, counted.ttlInSeconds));
    throw Object.assign(new Error('client limit'), { statusCode: 429 });
  };
}
