/** Writes every failure, the framework's and Node's too: `{"error": …}`, RFC 6749 §5.2. */
import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import {
  OAuthError,
  type OAuthErrorCode,
  TemporarilyUnavailable,
  TooManyFailures,
} from '../oauth/errors.ts';
import { addressOf } from './address.ts';

/** RFC 7617 §2. A 401 without a challenge would violate RFC 9110 §15.5.2. */
export const BASIC_CHALLENGE = 'Basic realm="heirloom"';

/**
 * | Thrown                    | Status        | `error`                   | Header             |
 * |---------------------------|---------------|---------------------------|--------------------|
 * | `invalid_client`          | 401           | its code                  | `WWW-Authenticate` |
 * | `access_denied`           | 403           | its code                  |                    |
 * | any other `OAuthError`    | 400           | its code                  |                    |
 * | `TemporarilyUnavailable`  | 503           | `temporarily_unavailable` | `Retry-After`      |
 * | `TooManyFailures`         | 429           | `temporarily_unavailable` | `Retry-After`      |
 * | too many requests         | 429           | `temporarily_unavailable` | `Retry-After`      |
 * | the framework's 4xx       | as it says    | `invalid_request`         |                    |
 * | anything else             | 500           | `server_error`            | `X-Request-Id`     |
 */
export function handleError(
  error: FastifyError | Error,
  request: FastifyRequest,
  reply: FastifyReply,
): FastifyReply {
  if (error instanceof OAuthError) return sendRefusal(error, request, reply);
  if (error instanceof TemporarilyUnavailable) {
    const { message: detail, cause } = error;
    // Trouble has a cause; without one there was simply too much to do.
    const reasons = cause === undefined ? {} : { cause: reasonsOf(error) };
    noteFlood(request, 'error', { event: 'unavailable', detail, ...reasons });
    return reply
      .code(503)
      .header('retry-after', error.retryAfterSeconds)
      .send({ error: 'temporarily_unavailable' });
  }
  if (error instanceof TooManyFailures) {
    const { message: detail, context, retryAfterSeconds } = error;
    const event = context.securityEvent ?? context.event;
    // Once a window it is news; the rest would fill the log at the attacker's pace.
    const level = context.securityEvent === undefined ? 'info' : 'warn';
    request.log[level]({
      ...context,
      event,
      outcome: 'refused',
      detail,
      address: addressOf(request),
    });
    return reply
      .code(429)
      .header('retry-after', retryAfterSeconds)
      .send({ error: 'temporarily_unavailable' });
  }
  // Whatever was thrown: a dependency's mistake need not be an error at all.
  const {
    statusCode = 500,
    code,
    clientId,
  } = Object(error) as Partial<FastifyError & LimitedClient>;
  if (statusCode === 429) {
    noteFlood(request, 'warn', { event: 'rate_limited', outcome: 'refused', clientId });
    return reply.code(429).send({ error: 'temporarily_unavailable' });
  }
  if (statusCode >= 400 && statusCode < 500) {
    const address = addressOf(request);
    request.log.info({ event: 'refused', outcome: 'refused', detail: code, address });
    return reply.code(statusCode).send({ error: 'invalid_request' });
  }
  const { name, stack } = Object(error) as Partial<Error>;
  request.log.error({ event: 'failed', error: { name, stack } });
  return reply.code(500).header('x-request-id', request.id).send({ error: 'server_error' });
}

/** Who was over a limit, where that is known. */
interface LimitedClient {
  readonly clientId: string;
}

/** When a server last wrote such a line, and how many it has not written since. */
interface FloodLine {
  readonly at: number;
  unwritten: number;
}

/** By what they say, which is one of a few constants: an event and its detail. */
const floodLines = new WeakMap<object, Map<string, FloodLine>>();

/** Writes a line at most once a second: neither a flood nor an outage may fill the log at the requests' pace. */
function noteFlood(
  request: FastifyRequest,
  level: 'warn' | 'error',
  line: {
    readonly event: 'rate_limited' | 'unavailable';
    readonly outcome?: 'refused';
    readonly clientId?: string | undefined;
    readonly detail?: string;
    readonly cause?: readonly string[];
  },
): void {
  const now = performance.now();
  const { server } = request.server;
  const lines = floodLines.get(server) ?? new Map<string, FloodLine>();
  floodLines.set(server, lines);
  const kind = `${line.event} ${line.detail}`;
  const last = lines.get(kind) ?? { at: Number.NEGATIVE_INFINITY, unwritten: 0 };
  if (now - last.at < 1000) {
    last.unwritten++;
    return;
  }
  lines.set(kind, { at: now, unwritten: 0 });
  const { unwritten } = last;
  request.log[level]({ ...line, address: addressOf(request), path: pathOf(request), unwritten });
}

/** Answers a path that does not exist, without repeating it, and methods that exist on no path. */
export function handleNotFound(request: FastifyRequest, reply: FastifyReply): FastifyReply {
  // RFC 9110 §9.1.
  const isKnownMethod = request.server.supportedMethods.includes(request.method);
  return isKnownMethod
    ? reply.code(404).send({ error: 'not_found' })
    : reply.code(501).send({ error: 'not_implemented' });
}

/** Answers what Node refuses before there is a request that Fastify could answer. */
export function answerMalformedHttp(
  error: Error & { code?: string },
  socket: Socket,
  headers: Readonly<Record<string, string>>,
): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return;
  writeFailure(socket, malformedHttpStatus[error.code ?? ''] ?? 400, headers);
}

const malformedHttpStatus: Readonly<Record<string, number>> = {
  HPE_HEADER_OVERFLOW: 431,
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 413,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
};

/** Writes a failure by hand and closes the connection. */
export function writeFailure(
  socket: Socket,
  status: number,
  headers: Readonly<Record<string, string>>,
): void {
  // Node may have taken its own listener off by now, and an unheard error would end the process.
  socket.on('error', () => {});
  const body = JSON.stringify({ error: status === 501 ? 'not_implemented' : 'invalid_request' });
  const lines = Object.entries({
    date: new Date().toUTCString(),
    ...headers,
    connection: 'close',
    'content-type': 'application/json; charset=utf-8',
    'content-length': body.length,
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  if (socket.writable) {
    socket.write(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`);
  }
  socket.destroySoon();
}

function sendRefusal(
  error: OAuthError,
  request: FastifyRequest,
  reply: FastifyReply,
): FastifyReply {
  const { code, description, detail, context } = error;
  const line = {
    event: context.securityEvent ?? context.event ?? 'refused',
    outcome: 'refused',
    code,
    detail,
    clientId: context.clientId,
    familyId: context.familyId,
    subject: context.subject,
    usernameDigest: context.usernameDigest,
    address: addressOf(request),
    familyAddress: context.familyAddress,
    path: pathOf(request),
  };
  request.log[levelOf(error)](line);
  if (code === 'invalid_client') reply.header('www-authenticate', BASIC_CHALLENGE);
  return reply.code(statusOf(code)).send({ error: code, error_description: description });
}

function statusOf(code: OAuthErrorCode): number {
  if (code === 'invalid_client') return 401;
  return code === 'access_denied' ? 403 : 400;
}

function levelOf({ context }: OAuthError): 'info' | 'warn' | 'error' {
  if (context.isFault) return 'error';
  return context.securityEvent === undefined ? 'info' : 'warn';
}

/** A query string may hold somebody's token, so it never reaches a log. */
const pathOf = (request: FastifyRequest): string | undefined => request.routeOptions.url;

/** Messages and codes along the chain of causes; the errors themselves could hold bound values. */
function reasonsOf(error: Error): string[] {
  const reasons: string[] = [];
  let cause = error.cause;
  while (cause instanceof Error && reasons.length < 5) {
    const code = 'code' in cause ? `${String(cause.code)} ` : '';
    reasons.push(`${code}${cause.message}`);
    cause = cause.cause;
  }
  return reasons;
}
