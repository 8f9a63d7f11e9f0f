/**
 * Cross-origin requests (Fetch §3.2): whose scripts may read answers of `/token` and `/revoke`.
 *
 * @fastify/cors decides before the body is read. Here the client in the body decides: an origin that one
 * client registered says nothing about another's answers (OAuth 2.0 for Browser-Based Applications §6.3.3.4).
 */
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { Client } from '../oauth/client.ts';
import type { OriginStore, RegisteredOrigin } from '../oauth/ports.ts';
import { CSRF_HEADER } from './refresh-cookie.ts';

/** The CORS side of an endpoint, from the arrival of a request to its answer. */
export interface Cors {
  /** The answer is due from here on, whoever has to be asked who may read it. */
  noteArrival(request: FastifyRequest): void;
  /** From here on the client decides who may read the answer. */
  noteClient(request: FastifyRequest, client: Client): void;
  /** Runs for every answer of a route, failures of the framework included. */
  onSend(
    request: FastifyRequest,
    reply: FastifyReply,
    payload: unknown,
    done: (error: null, payload: unknown) => void,
  ): void;
}

/** How long a browser may go without asking again; actual requests are judged each time. */
const PREFLIGHT_LIFETIME_SECONDS = 600;

const allowedHeaders = ['authorization', 'content-type', CSRF_HEADER].join(', ');
const exposedHeaders = [
  'Retry-After',
  'WWW-Authenticate',
  'RateLimit-Limit',
  'RateLimit-Remaining',
  'RateLimit-Reset',
].join(', ');

/** Builds it over what clients have registered; where that cannot be read in time, no page reads an answer. */
export function createCors(origins: OriginStore, answerDeadlineSeconds: number): Cors {
  const clients = new WeakMap<FastifyRequest, Client>();
  const arrivals = new WeakMap<FastifyRequest, number>();
  const secondsLeft = (request: FastifyRequest): number => {
    const now = performance.now();
    return answerDeadlineSeconds - (now - (arrivals.get(request) ?? now)) / 1000;
  };
  /** A preflight names no client, and neither does what is refused unread: any client's origin may read. */
  const registered = async (request: FastifyRequest, origin: string) => {
    const client = clients.get(request);
    if (client !== undefined) return registeredFor(client, origin);
    // Without an answer nobody may read more than with one; the request itself is judged elsewhere.
    if (!isSerialized(origin)) return undefined;
    return origins.find(origin, secondsLeft(request)).catch(() => undefined);
  };
  return {
    noteArrival(request) {
      if (request.headers.origin !== undefined) arrivals.set(request, performance.now());
    },
    noteClient(request, client) {
      if (request.headers.origin !== undefined) clients.set(request, client);
    },
    // Calls back: a promise would cost requests of other programs more than what is done for them.
    onSend(request, reply, payload, done) {
      reply.header('vary', 'Origin');
      const { origin } = request.headers;
      if (origin === undefined) {
        done(null, payload);
        return;
      }
      registered(request, origin).then((found) => {
        if (found !== undefined) allow(request, reply, origin, found);
        done(null, payload);
      });
    },
  };
}

function allow(
  request: FastifyRequest,
  reply: FastifyReply,
  origin: string,
  { hasCookieClient }: RegisteredOrigin,
): void {
  reply.header('access-control-allow-origin', origin);
  if (hasCookieClient) reply.header('access-control-allow-credentials', 'true');
  if (request.method === 'OPTIONS') {
    reply.header('access-control-allow-methods', 'POST');
    reply.header('access-control-allow-headers', allowedHeaders);
    reply.header('access-control-max-age', PREFLIGHT_LIFETIME_SECONDS);
    return;
  }
  reply.header('access-control-expose-headers', exposedHeaders);
  withoutDialog(request, reply);
}

/** Pure, for a client that is known: its own origins and no others. */
export const registeredFor = (
  { origins, delivery }: Pick<Client, 'origins' | 'delivery'>,
  origin: string,
): RegisteredOrigin | undefined =>
  origins.includes(origin) ? { hasCookieClient: delivery === 'cookie' } : undefined;

/** RFC 6454 §6.1. What no client can register is not looked up; `null` stands for anybody. */
const isSerialized = (origin: string): boolean => /^https?:\/\/[\x21-\x7e]{1,253}$/.test(origin);

/**
 * At a challenge the browser itself asks the person for a password. RFC 6749 §5.2 demands the challenge of
 * those who sent an `Authorization` header only.
 */
function withoutDialog(request: FastifyRequest, reply: FastifyReply): void {
  if (reply.statusCode !== 401 || request.headers.authorization !== undefined) return;
  reply.code(400).removeHeader('www-authenticate');
}
