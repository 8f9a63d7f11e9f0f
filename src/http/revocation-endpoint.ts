/** `POST /revoke`, RFC 7009 §2. */
import type { FastifyInstance } from 'fastify';
import Type from 'typebox';
import type { AuthorizationServer } from '../oauth/authorization-server.ts';
import { addressOf } from './address.ts';
import { createClientLimit } from './client-limit.ts';
import { addClientEndpoint } from './endpoint.ts';
import { clientEndpointErrors, tokenInquiry } from './schemas.ts';
import { readTokenInquiry } from './token-inquiry.ts';

/** RFC 7009 §5: what guesses tokens by revoking them is slowed down. */
const limit = { requests: 1000, windowSeconds: 60 };

export function addRevocationEndpoint(app: FastifyInstance, server: AuthorizationServer): void {
  const checkLimit = createClientLimit(app, limit);
  addClientEndpoint(app, {
    url: '/revoke',
    requestsPerSecond: 600,
    schema: {
      operationId: 'revoke',
      summary: 'Log out',
      description:
        'A refresh token, current or spent, ends its whole session at once. An access token ends ' +
        'only itself. A token that is unknown or dead already is answered with 200 too.',
      tags: ['OAuth'],
      body: tokenInquiry,
      response: {
        200: Type.Null({ description: 'The token is not good any more.' }),
        ...clientEndpointErrors,
      },
    },
    async handle(form, request, reply) {
      const inquiry = readTokenInquiry(form, request);
      await checkLimit(request, reply, inquiry.credentials?.clientId);
      const revocation = await server.revoke(inquiry);
      request.log.info({
        event: 'revoke',
        outcome: 'success',
        address: addressOf(request),
        ...revocation,
      });
      // RFC 7009 §2.2: the client learns nothing about the token, so there is nothing to say.
      return reply.code(200).send();
    },
  });
}
