/** What the three endpoints for clients share: POST only, a form, and answers that nobody caches. */
import type { FastifyInstance, FastifyReply, FastifyRequest, FastifySchema } from 'fastify';
import { inTime } from '../deadline.ts';
import type { Cors } from './cors.ts';
import { noteFailure } from './error-handler.ts';
import { emptyForm, type Form } from './form.ts';
import type { CookiePath } from './refresh-cookie.ts';
import { type Responses, withLimitHeaders } from './schemas.ts';

const FORM = 'application/x-www-form-urlencoded';

/** What the endpoints that apps in browsers use need to know. */
export interface AppEndpointOptions {
  readonly cors: Cors;
  readonly cookiePath: CookiePath;
  readonly answerDeadlineSeconds: number;
}

export interface ClientEndpoint {
  readonly url: string;
  /**
   * Each wait for the database has a deadline of its own, but a request has several of them, and on a network that
   * has fallen silent it first waits for statements of others.
   *
   * What is late is done all the same. Its outcome is in the log, and unknown to the client, who repeats it as
   * after a lost answer.
   */
  readonly answerDeadlineSeconds: number;
  readonly schema: FastifySchema & { readonly response: Responses };
  /** Requests per second and network, before a body is read; more are answered with 429. */
  readonly requestsPerSecond?: number;
  /** Undefined where no browser has anything to ask. */
  readonly cors?: Cors;
  readonly handle: (form: Form, request: FastifyRequest, reply: FastifyReply) => Promise<unknown>;
}

/** Registers `POST url`, and 405 for everything else there (RFC 6749 §3.2, RFC 7009 §2.1, RFC 7662 §2.1). */
export function addClientEndpoint(app: FastifyInstance, endpoint: ClientEndpoint): void {
  const { schema, requestsPerSecond, answerDeadlineSeconds, cors } = endpoint;
  app.post(endpoint.url, {
    schema: {
      consumes: [FORM],
      // Neither credentials in the body nor a public client's name are a scheme of OpenAPI.
      security: [{ client_secret_basic: [] }, {}],
      ...schema,
      response: requestsPerSecond ? withLimitHeaders(schema.response) : schema.response,
    },
    ...(requestsPerSecond && {
      config: { rateLimit: { max: requestsPerSecond, timeWindow: 1000 } },
    }),
    ...(cors && { onSend: cors.onSend }),
    handler: (request, reply) => {
      cors?.noteArrival(request);
      const form = (request.body as Form | undefined) ?? emptyForm;
      // A replay is an alarm, and what the database died of is news, whoever waits.
      const noteLate = (reason: unknown) => noteFailure(reason, request);
      return inTime(endpoint.handle(form, request, reply), answerDeadlineSeconds, noteLate);
    },
  });
  refuseOtherMethods(app, endpoint.url, 'POST', cors);
}

/** Answers OPTIONS, and 405 with `Allow` to every other method but the one given (RFC 9110 §15.5.6). */
export function refuseOtherMethods(
  app: FastifyInstance,
  url: string,
  allowed: 'GET' | 'POST',
  cors?: Cors,
): void {
  const allow = allowed === 'GET' ? ['GET', 'HEAD', 'OPTIONS'] : ['POST', 'OPTIONS'];
  const answer = (method: string[], status: number, body?: { error: string }) =>
    app.route({
      method,
      url,
      schema: { hide: true },
      // The body of a request that is not processed is not read, whatever its type.
      onRequest: async (_request, reply) =>
        reply.code(status).header('allow', allow.join(', ')).send(body),
      ...(cors && { onSend: cors.onSend }),
      handler: () => {},
    });
  answer(['OPTIONS'], 204);
  const others = app.supportedMethods.filter((method) => !allow.includes(method));
  answer(others, 405, { error: 'method_not_allowed' });
}
