/** Where a request comes from and where it goes, as logs and counters may know it. */
import { isIP } from 'node:net';
import { normalizeIP } from '@fastify/rate-limit';
import type { FastifyRequest } from 'fastify';

/**
 * The caller's address, as the trusted proxies say, or the connection's own.
 *
 * A forwarding header is text that anybody may have written; only an address is believed.
 */
export function addressOf(request: FastifyRequest): string {
  if (isIP(request.ip) !== 0) return request.ip;
  const address = withoutPort(request.ip);
  return isIP(address) === 0 ? (request.socket.remoteAddress ?? 'unknown') : address;
}

/** Some gateways write `192.0.2.1:50000` and `[2001:db8::1]:50000`. */
const withoutPort = (text: string): string =>
  text.replace(/^([\d.]+):\d+$/, '$1').replace(/^\[(.+)\](?::\d+)?$/, '$1');

/**
 * What one party is likely to hold as a whole, and is counted by: an IPv4 address, also where it is
 * mapped into IPv6, and the /64 of an IPv6 address, within which anybody can have a new one per request.
 */
export const networkOf = (request: FastifyRequest): string => normalizeIP(addressOf(request), 64);

/** The route: a URL's query may hold somebody's token and never reaches a log. */
export const pathOf = (request: FastifyRequest): string | undefined => request.routeOptions.url;
