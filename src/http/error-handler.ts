/** Writes every failure of a request, the framework's too: `{"error": …}`, RFC 6749 §5.2. */
import type { FastifyError, FastifyReply, FastifyRequest } from 'fastify';
import {
  OAuthError,
  type OAuthErrorCode,
  TemporarilyUnavailable,
  TooManyFailures,
} from '../oauth/errors.ts';
import { addressOf, pathOf } from './address.ts';
import { noteFlood } from './flood-lines.ts';

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
  noteFailure(error, request);
  if (error instanceof OAuthError) return sendRefusal(error, reply);
  if (error instanceof TemporarilyUnavailable || error instanceof TooManyFailures) {
    return sendUnavailable(error, reply);
  }
  return sendHttpError(error, request, reply);
}

/** Writes the log's line about a failure, also where nobody waits for the answer any more. */
export function noteFailure(error: unknown, request: FastifyRequest): void {
  if (error instanceof OAuthError) noteRefusal(error, request);
  else if (error instanceof TemporarilyUnavailable) noteUnavailable(error, request);
  else if (error instanceof TooManyFailures) noteTooManyFailures(error, request);
  else noteHttpError(error, request);
}

/** Answers a path that does not exist, without repeating it, and methods that exist on no path. */
export function handleNotFound(request: FastifyRequest, reply: FastifyReply): FastifyReply {
  // RFC 9110 §9.1.
  const isKnownMethod = request.server.supportedMethods.includes(request.method);
  return isKnownMethod
    ? reply.code(404).send({ error: 'not_found' })
    : reply.code(501).send({ error: 'not_implemented' });
}

function noteRefusal(error: OAuthError, request: FastifyRequest): void {
  const { code, detail, context } = error;
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
}

function sendRefusal({ code, description }: OAuthError, reply: FastifyReply): FastifyReply {
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

function sendUnavailable(
  error: TemporarilyUnavailable | TooManyFailures,
  reply: FastifyReply,
): FastifyReply {
  return reply
    .code(error instanceof TooManyFailures ? 429 : 503)
    .header('retry-after', error.retryAfterSeconds)
    .send({ error: 'temporarily_unavailable' });
}

function noteUnavailable(error: TemporarilyUnavailable, request: FastifyRequest): void {
  const { message: detail, cause } = error;
  // Trouble has a cause; without one there was simply too much to do.
  const reasons = cause === undefined ? {} : { cause: reasonsOf(error) };
  noteFlood(request, 'error', { event: 'unavailable', detail, ...reasons });
}

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

function noteTooManyFailures(error: TooManyFailures, request: FastifyRequest): void {
  const { message: detail, context } = error;
  // Once a window it is news; the rest would fill the log at the attacker's pace.
  const level = context.securityEvent === undefined ? 'info' : 'warn';
  request.log[level]({
    ...context,
    event: context.securityEvent ?? context.event,
    outcome: 'refused',
    detail,
    address: addressOf(request),
  });
}

/** Who was over a limit, where that is known. */
interface LimitedClient {
  readonly clientId: string;
}

/** What HTTP, the framework or the limiter refuses, and whatever else was thrown, which need not be an error at all. */
function noteHttpError(error: unknown, request: FastifyRequest): void {
  const {
    statusCode = 500,
    code,
    clientId,
  } = Object(error) as Partial<FastifyError & LimitedClient>;
  if (statusCode === 429) {
    noteFlood(request, 'warn', { event: 'rate_limited', outcome: 'refused', clientId });
  } else if (isClientsFault(statusCode)) {
    const address = addressOf(request);
    request.log.info({ event: 'refused', outcome: 'refused', detail: code, address });
  } else {
    const { name, stack } = Object(error) as Partial<Error>;
    request.log.error({ event: 'failed', error: { name, stack } });
  }
}

const isClientsFault = (statusCode: number): boolean => statusCode >= 400 && statusCode < 500;

function sendHttpError(error: unknown, request: FastifyRequest, reply: FastifyReply): FastifyReply {
  const { statusCode = 500 } = Object(error) as Partial<FastifyError>;
  if (statusCode === 429) return reply.code(429).send({ error: 'temporarily_unavailable' });
  if (isClientsFault(statusCode)) return reply.code(statusCode).send({ error: 'invalid_request' });
  return reply.code(500).header('x-request-id', request.id).send({ error: 'server_error' });
}

/** A refusal by HTTP itself, for which RFC 6749 has no code of its own; `code` is for the log. */
export const httpError = (statusCode: number, code: string): Error =>
  Object.assign(new Error(code), { statusCode, code });
