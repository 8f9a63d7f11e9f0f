/** Addresses as a client would write them. */
import type { AddressInfo } from 'node:net';
import type { FastifyInstance } from 'fastify';

/** Where the application listens, as a client would write it. */
export function listeningAddress(app: FastifyInstance, host: string): string {
  const [address] = app.addresses() as AddressInfo[];
  return hostAndPort(host, address?.port ?? 0);
}

/** `host:port`, with brackets around an IPv6 address. */
export const hostAndPort = (host: string, port: number): string =>
  `${host.includes(':') ? `[${host}]` : host}:${port}`;
