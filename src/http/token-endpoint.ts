/** `POST /token`, RFC 6749 §3.2: from form to grant and back. */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import type { AuthorizationServer } from '../oauth/authorization-server.ts';
import { invalidRequest } from '../oauth/errors.ts';
import type { IssuedTokens } from '../oauth/grants/grant.ts';
import type { RequestOrigin } from '../oauth/ports.ts';
import { formatScope } from '../oauth/scope.ts';
import { addressOf } from './address.ts';
import { clientCredentialParameters, readClientCredentials } from './client-credentials.ts';
import { addClientEndpoint } from './endpoint.ts';
import { readParameters } from './form.ts';
import { clientEndpointErrors, tokenRequest, tokenResponse } from './schemas.ts';

const parameterNames = [
  'grant_type',
  'username',
  'password',
  'refresh_token',
  'scope',
  'device_label',
  ...clientCredentialParameters,
] as const;

const MAXIMUM_DEVICE_LABEL_CHARACTERS = 64;
/** Longer ones are cut: they help people to recognise a session and decide nothing. */
const MAXIMUM_USER_AGENT_CHARACTERS = 256;

export function addTokenEndpoint(app: FastifyInstance, server: AuthorizationServer): void {
  addClientEndpoint(app, {
    url: '/token',
    requestsPerSecond: 600,
    schema: {
      operationId: 'token',
      summary: 'Log in, or refresh',
      description:
        'Issues an access token and a refresh token. A refresh token is good once: the next one ' +
        'comes with each answer. Presented again after that, it ends the whole session, except that ' +
        'a retry soon after a lost response returns the same answer again.',
      tags: ['OAuth'],
      body: tokenRequest,
      response: { 200: tokenResponse, ...clientEndpointErrors },
    },
    async handle(form, request, reply) {
      const parameters = readParameters(form, parameterNames);
      if (parameters.grant_type === undefined) throw invalidRequest('grant_type is missing');
      const issued = await server.token({
        grantType: parameters.grant_type,
        credentials: readClientCredentials(request.headers.authorization, parameters),
        scope: parameters.scope,
        username: parameters.username,
        password: parameters.password,
        refreshToken: parameters.refresh_token,
        origin: originOf(request, parameters.device_label),
        isAbandoned: abandonmentOf(request),
      });
      const { event, familyId, subject } = issued;
      const { clientId } = issued;
      const outcome = 'success';
      request.log.info({
        event,
        outcome,
        clientId,
        familyId,
        subject,
        address: addressOf(request),
      });
      // RFC 6749 §5.1 asks for it on every response that carries tokens.
      reply.header('pragma', 'no-cache');
      return tokenBody(issued);
    },
  });
}

/** RFC 6749 §5.1; members that have no value are left out, never null. */
const tokenBody = (issued: IssuedTokens) => ({
  access_token: issued.accessToken,
  token_type: 'Bearer',
  expires_in: issued.expiresInSeconds,
  refresh_token: issued.refreshToken,
  scope: formatScope(issued.grantedScope),
});

/** Longer, and the caller has given up or will soon (the requirements' deadline for any answer). */
const MAXIMUM_WAIT_MILLISECONDS = 5000;

function abandonmentOf(request: FastifyRequest): () => boolean {
  const arrivedAt = performance.now();
  return () =>
    request.raw.socket.destroyed || performance.now() - arrivedAt > MAXIMUM_WAIT_MILLISECONDS;
}

function originOf(request: FastifyRequest, deviceLabel: string | undefined): RequestOrigin {
  if (deviceLabel !== undefined && deviceLabel.length > MAXIMUM_DEVICE_LABEL_CHARACTERS) {
    throw invalidRequest('device_label is too long');
  }
  return {
    address: addressOf(request),
    userAgent: request.headers['user-agent']?.slice(0, MAXIMUM_USER_AGENT_CHARACTERS),
    deviceLabel,
  };
}
