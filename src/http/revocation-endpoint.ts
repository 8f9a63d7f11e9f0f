/** `POST /revoke`, RFC 7009 §2. */
import type { FastifyInstance } from 'fastify';
import Type from 'typebox';
import type { AuthorizationServer, RevocationRequest } from '../oauth/authorization-server.ts';
import { addressOf } from './address.ts';
import { type AppEndpointOptions, addClientEndpoint } from './endpoint.ts';
import { clearRefreshCookie, readBrowserRequest } from './refresh-cookie.ts';
import { createClientLimit } from './request-limits.ts';
import { appEndpointErrors, appHeaders, cookieHeader } from './schemas.ts';
import { readTokenInquiry } from './token-inquiry.ts';

/** RFC 7009 §5: what guesses tokens by revoking them is slowed down. */
const limit = { name: 'revoke', requests: 1000, windowSeconds: 60 };

export function addRevocationEndpoint(
  app: FastifyInstance,
  server: AuthorizationServer,
  { cors, cookiePath, answerDeadlineSeconds }: AppEndpointOptions,
): void {
  const countRevocation = createClientLimit(app, limit);
  addClientEndpoint(app, {
    url: '/revoke',
    answerDeadlineSeconds,
    requestsPerSecond: 600,
    cors,
    schema: {
      operationId: 'revoke',
      summary: 'Log out',
      description:
        'A refresh token, current or spent, ends its whole session at once. An access token ends ' +
        'only itself. A token that is unknown or dead already is answered with 200 too.\n\n' +
        'A client in cookie mode logs out without `token`: the cookie says which, and is cleared.',
      tags: ['OAuth'],
      headers: appHeaders,
      body: Type.Ref('RevocationRequest'),
      response: {
        200: { ...Type.Ref('Revocation'), headers: cookieHeader },
        ...appEndpointErrors('invalid_request', 'invalid_grant'),
      },
    },
    async handle(form, request, reply) {
      const inquiry = readTokenInquiry(form, request);
      const browser = readBrowserRequest(request, inquiry.credentials?.clientId, cookiePath);
      const noteClient: RevocationRequest['noteClient'] = (client) =>
        cors.noteClient(request, client);
      const checkLimit: RevocationRequest['checkLimit'] = (client, heldFamilyId) =>
        countRevocation(request, reply, client, heldFamilyId);
      const { isCookieSpent, ...revocation } = await server.revoke({
        ...inquiry,
        browser,
        noteClient,
        checkLimit,
      });
      request.log.info({
        event: 'revoke',
        outcome: 'success',
        address: addressOf(request),
        ...revocation,
      });
      if (isCookieSpent) {
        clearRefreshCookie(reply, { clientId: revocation.clientId, path: cookiePath });
      }
      // RFC 7009 §2.2: the client learns nothing about the token. An object all the same: clients that
      // take no answer but JSON would take an empty one for a failure, and not go on to the next token.
      return {};
    },
  });
}
