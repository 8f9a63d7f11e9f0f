/** Where a request comes from. */
import { isIP } from 'node:net';
import type { FastifyRequest } from 'fastify';

/**
 * The caller's address, as the trusted proxies say, or the connection's own.
 *
 * A forwarding header is text that anybody may have written; only an address is believed.
 */
export const addressOf = (request: FastifyRequest): string =>
  isIP(request.ip) === 0 ? (request.socket.remoteAddress ?? 'unknown') : request.ip;
