/** `POST /introspect`, RFC 7662 §2. */
import type { FastifyInstance } from 'fastify';
import Type from 'typebox';
import type { AuthorizationServer } from '../oauth/authorization-server.ts';
import type { ActiveIntrospection } from '../oauth/introspection.ts';
import { formatScope } from '../oauth/scope.ts';
import { addClientEndpoint } from './endpoint.ts';
import { clientEndpointErrors } from './schemas.ts';
import { readTokenInquiry } from './token-inquiry.ts';

export function addIntrospectionEndpoint(
  app: FastifyInstance,
  server: AuthorizationServer,
  options: { readonly issuer: () => string; readonly answerDeadlineSeconds: number },
): void {
  addClientEndpoint(app, {
    url: '/introspect',
    answerDeadlineSeconds: options.answerDeadlineSeconds,
    // No limit: resource servers ask on every API request. Callers that fail to authenticate are counted.
    schema: {
      operationId: 'introspect',
      summary: 'Ask whether a token is good',
      description:
        'For confidential clients only. Every answer is read from the database after the request ' +
        'arrived. A token that is unknown, dead or not meant for the caller is simply inactive.',
      tags: ['OAuth'],
      body: Type.Ref('IntrospectionRequest'),
      response: { 200: Type.Ref('Introspection'), ...clientEndpointErrors('invalid_request') },
    },
    async handle(form, request) {
      const introspection = await server.introspect(readTokenInquiry(form, request));
      return introspection.active ? activeBody(introspection, options.issuer()) : { active: false };
    },
  });
}

/** RFC 7662 §2.2; members that have no value are left out. */
const activeBody = (introspection: ActiveIntrospection, issuer: string) => ({
  active: true,
  scope: formatScope(introspection.scope),
  client_id: introspection.clientId,
  sub: introspection.subject,
  aud: audienceMember(introspection.audience),
  iss: issuer,
  token_type: introspection.tokenType,
  exp: secondsSinceEpoch(introspection.expiresAt),
  iat: secondsSinceEpoch(introspection.issuedAt),
});

/** RFC 7519 §4.1.3: one audience is a string, several are an array. */
const audienceMember = (audience: readonly string[]) =>
  audience.length > 1 ? audience : audience[0];

const secondsSinceEpoch = (instant: Date): number => Math.floor(instant.getTime() / 1000);
