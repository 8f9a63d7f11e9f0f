/** Where a request comes from. */
import { isIP } from 'node:net';
import { normalizeIP } from '@fastify/rate-limit';
import type { FastifyRequest } from 'fastify';

/**
 * The caller's address, as the trusted proxies say, or the connection's own.
 *
 * A forwarding header is text that anybody may have written; only an address is believed.
 */
export const addressOf = (request: FastifyRequest): string =>
  isIP(request.ip) === 0 ? (request.socket.remoteAddress ?? 'unknown') : request.ip;

/**
 * What one party is likely to hold as a whole, and is counted by: an IPv4 address, also where it is
 * mapped into IPv6, and the /64 of an IPv6 address, within which anybody can have a new one per request.
 */
export const networkOf = (request: FastifyRequest): string => normalizeIP(addressOf(request), 64);
