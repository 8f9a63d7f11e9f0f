/** What every request meets before its body is read, and every answer before it leaves. */
import type { IncomingMessage } from 'node:http';
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { Config } from '../config.ts';
import { TemporarilyUnavailable } from '../oauth/errors.ts';
import { handleNotFound, httpError } from './error-handler.ts';

/** How long the rest of a body that is too long is read and thrown away. */
const LINGER_MILLISECONDS = 1000;

/** RFC 6749 §5.1, on every response of every route: what has to be remembered would be forgotten once. */
export const commonHeaders = (config: Config): Readonly<Record<string, string>> => ({
  'cache-control': 'no-store',
  'x-content-type-options': 'nosniff',
  ...(hasTlsIssuer(config) && {
    'strict-transport-security': 'max-age=31536000; includeSubDomains',
  }),
});

const hasTlsIssuer = ({ issuer }: Config): boolean =>
  issuer !== undefined && new URL(issuer).protocol === 'https:';

/** How far the end of the process has come. */
export interface Ending {
  /** It has been told to end: balancers should look elsewhere, and nobody keeps a connection. */
  readonly isTold: () => boolean;
  /** Requests that come now are refused. */
  readonly isRefusing: () => boolean;
}

/** Sets the headers that every answer has, and refuses what no route should see before its body is read. */
export function checkOnArrival(
  app: FastifyInstance,
  config: Config,
  headers: Readonly<Record<string, string>>,
  ending: Ending,
): void {
  const isTlsRequired = hasTlsIssuer(config) && config.trustProxy !== false;
  const refusalOf = (request: FastifyRequest): Error | undefined => {
    if (ending.isRefusing() && request.routeOptions.url !== '/livez') {
      return new TemporarilyUnavailable('stopping');
    }
    // RFC 9112 §3.2.
    if (request.headers.host === undefined && request.raw.httpVersion === '1.1') {
      return httpError(400, 'NO_HOST');
    }
    // Not redirected: clients would go on sending their credentials over plain HTTP first.
    if (isTlsRequired && isToldPlainHttp(request) && !isHealthCheck(request)) {
      return httpError(400, 'PLAIN_HTTP');
    }
    return undefined;
  };
  // Hooks of every request call back: a promise each would cost more than what they do.
  app.addHook('onRequest', (request, reply, done) => {
    reply.headers(headers);
    const refusal = refusalOf(request);
    if (refusal === undefined && request.is404) handleNotFound(request, reply);
    else done(refusal);
  });
  // Whoever was in flight when the end began is answered, and must not keep the connection.
  app.addHook('onSend', (request, reply, payload, done) => {
    const isTold = ending.isTold();
    if (isTold) reply.header('connection', 'close');
    // Fastify closes the connection of a body that is too long.
    if (isTold || reply.statusCode === 413) readToEnd(request.raw, () => done(null, payload));
    else done(null, payload);
  });
}

/**
 * Reads what is left of a body before its connection is closed, for a second at most.
 *
 * A connection that is closed on octets nobody read is reset, and the answer may be lost with it (RFC 9112 §9.6):
 * a proxy that was still sending takes the server for broken, answers 502 and asks it nothing for a while.
 */
function readToEnd(raw: IncomingMessage, done: () => void): void {
  if (raw.complete || raw.destroyed) {
    done();
    return;
  }
  const end = () => {
    clearTimeout(timer);
    raw.off('end', end).off('close', end);
    done();
  };
  const timer = setTimeout(end, LINGER_MILLISECONDS);
  raw.once('end', end).once('close', end).resume();
}

/** Supervisors come without the proxy. Asked for last: Fastify builds `routeOptions` anew at each reading. */
const isHealthCheck = ({ routeOptions: { url } }: FastifyRequest): boolean =>
  url === '/livez' || url === '/readyz';

/** A proxy that says nothing about the protocol is believed to have checked it. */
const isToldPlainHttp = (request: FastifyRequest): boolean =>
  Boolean(request.headers['x-forwarded-proto']) && request.protocol.toLowerCase() !== 'https';
