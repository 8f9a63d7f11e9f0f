/** The guard as a Fastify plugin. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import fastifyPlugin from 'fastify-plugin';
import { assertChallengeable, bearerRefusals, hasTokenInForm, type Refusal } from './bearer.ts';
import {
  createTokenGuard,
  type GuardProblem,
  realmOf,
  type TokenGuardOptions,
  type VerifiedToken,
} from './token-guard.ts';

declare module 'fastify' {
  interface FastifyInstance {
    /**
     * Builds an `onRequest` hook that lets a request pass with a good token that has these scope-tokens;
     * with none, any good token will do.
     */
    requireScope(...requiredScope: readonly string[]): TokenHook;
  }
  interface FastifyRequest {
    /** The token with which the request passed `requireScope`; null on routes that do not ask for one. */
    token: VerifiedToken | null;
  }
}

export type TokenHook = (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>;

/**
 * Guards routes by introspection: `app.get('/notes', { onRequest: app.requireScope('read') }, handler)`.
 *
 * Trouble with the authorization server is logged by the app's own logger, unless `onProblem` is set.
 */
export const resourceServer = fastifyPlugin(
  async (app: FastifyInstance, options: TokenGuardOptions) => {
    const onProblem = (problem: GuardProblem) => {
      const level = problem.kind === 'misconfigured' ? 'error' : 'warn';
      app.log[level]({ event: 'introspection_failed', ...problem });
    };
    const guard = createTokenGuard({ onProblem, ...options });
    app.decorateRequest('token', null);
    app.decorate('requireScope', (...requiredScope: readonly string[]): TokenHook => {
      assertChallengeable('', requiredScope);
      return async (request, reply) => {
        const { headers: fields, headersDistinct } = request.raw;
        const { body: form } = request;
        const access = await guard.check(
          { headers: fields, headersDistinct, body: form },
          ...requiredScope,
        );
        if (access.outcome === 'granted') {
          request.token = access.token;
          return undefined;
        }
        return send(reply, access.refusal);
      };
    });
    const tokenTwice = bearerRefusals(realmOf(options)).refused('invalid_request');
    // An `onRequest` hook runs before there is a body to look for a second token in.
    app.addHook('preValidation', (request, reply, done) => {
      const { token, headers, body } = request;
      if (token === null || !hasTokenInForm(headers['content-type'], body)) return done();
      send(reply, tokenTwice);
    });
    app.addHook('onClose', async () => guard.close());
  },
  { fastify: '5.x', name: 'heirloom-resource-server' },
);

const send = (reply: FastifyReply, { status, headers, body }: Refusal): FastifyReply =>
  reply.code(status).headers(headers).send(body);
