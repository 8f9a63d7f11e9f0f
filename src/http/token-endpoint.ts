/** `POST /token`, RFC 6749 §3.2: from form to grant and back. */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import Type from 'typebox';
import type { AuthorizationServer } from '../oauth/authorization-server.ts';
import type { Client } from '../oauth/client.ts';
import { invalidRequest, OAuthError } from '../oauth/errors.ts';
import type { IssuedTokens, TokenRequest } from '../oauth/grants/grant.ts';
import type { RequestOrigin } from '../oauth/ports.ts';
import { formatScope } from '../oauth/scope.ts';
import { addressOf, networkOf } from './address.ts';
import { clientCredentialParameters, readClientCredentials } from './client-credentials.ts';
import { type AppEndpointOptions, addClientEndpoint } from './endpoint.ts';
import { type Form, readParameters } from './form.ts';
import {
  type CookiePath,
  clearRefreshCookie,
  readBrowserRequest,
  setRefreshCookie,
} from './refresh-cookie.ts';
import { createClientLimit } from './request-limits.ts';
import {
  appEndpointErrors,
  appHeaders,
  cookieHeader,
  MAXIMUM_DEVICE_LABEL_CHARACTERS,
} from './schemas.ts';

const parameterNames = [
  'grant_type',
  'username',
  'password',
  'refresh_token',
  'scope',
  'device_label',
  ...clientCredentialParameters,
] as const;

/** Longer ones are cut: they help people to recognise a session and decide nothing. */
const MAXIMUM_USER_AGENT_CHARACTERS = 256;

/** A person who types has no need of more logins, a client none of more refreshes. */
const limits = {
  password: { name: 'password', requests: 30, windowSeconds: 60 },
  refresh_token: { name: 'refresh_token', requests: 600, windowSeconds: 60, isOverload: true },
} as const;

const errors = appEndpointErrors(
  'invalid_request',
  'invalid_grant',
  'invalid_scope',
  'unauthorized_client',
  'unsupported_grant_type',
);

export function addTokenEndpoint(
  app: FastifyInstance,
  server: AuthorizationServer,
  { cors, cookiePath, answerDeadlineSeconds }: AppEndpointOptions,
): void {
  const limitOf = new Map(
    Object.entries(limits).map(([grantType, limit]) => [grantType, createClientLimit(app, limit)]),
  );
  addClientEndpoint(app, {
    url: '/token',
    answerDeadlineSeconds,
    requestsPerSecond: 600,
    cors,
    schema: {
      operationId: 'token',
      summary: 'Log in, or refresh',
      description:
        'Issues an access token and a refresh token. A refresh token is good once: the next one ' +
        'comes with each answer. Presented again after that, it ends the whole session, except that ' +
        'a retry soon after a lost response returns the same answer again.\n\n' +
        'For a client in cookie mode the refresh token travels only in the cookie ' +
        '`__Host-heirloom_refresh_` + the first 16 hex digits of SHA-256(client_id).',
      tags: ['OAuth'],
      headers: appHeaders,
      body: Type.Ref('TokenRequest'),
      response: {
        200: { ...Type.Ref('TokenResponse'), headers: cookieHeader },
        ...errors,
        400: { ...errors[400], headers: cookieHeader },
      },
    },
    async handle(form, request, reply) {
      const presented = readTokenRequest(form, request, cookiePath);
      let client: Client | undefined;
      const noteClient = (found: Client) => {
        client = found;
        cors.noteClient(request, found);
      };
      try {
        const checkLimit: TokenRequest['checkLimit'] = async (authenticated, heldFamilyId) =>
          limitOf.get(presented.grantType)?.(request, reply, authenticated, heldFamilyId);
        const issued = await server.token({ ...presented, noteClient, checkLimit });
        logIssued(request, issued);
        // RFC 6749 §5.1 asks for it on every response that carries tokens.
        reply.header('pragma', 'no-cache');
        const { refreshToken, clientId } = issued;
        if (client?.delivery !== 'cookie') return tokenBody(issued, refreshToken?.text);
        if (refreshToken) setRefreshCookie(reply, { clientId, path: cookiePath }, refreshToken);
        return tokenBody(issued, undefined);
      } catch (error) {
        if (client?.delivery === 'cookie' && isSessionOver(error)) {
          clearRefreshCookie(reply, { clientId: client.clientId, path: cookiePath });
        }
        throw error;
      }
    },
  });
}

/** @throws OAuthError `invalid_request` or `invalid_client`, as the form and the header deserve */
function readTokenRequest(
  form: Form,
  request: FastifyRequest,
  cookiePath: CookiePath,
): Omit<TokenRequest, 'noteClient' | 'checkLimit'> {
  const parameters = readParameters(form, parameterNames);
  if (parameters.grant_type === undefined) throw invalidRequest('grant_type is missing');
  const credentials = readClientCredentials(request.headers.authorization, parameters);
  return {
    grantType: parameters.grant_type,
    credentials,
    scope: parameters.scope,
    username: parameters.username,
    password: parameters.password,
    refreshToken: parameters.refresh_token,
    origin: originOf(request, parameters.device_label),
    browser: readBrowserRequest(request, credentials?.clientId, cookiePath),
    isAbandoned: abandonmentOf(request),
  };
}

function logIssued(request: FastifyRequest, issued: IssuedTokens): void {
  const { event, clientId, familyId, subject } = issued;
  const outcome = 'success';
  request.log.info({ event, outcome, clientId, familyId, subject, address: addressOf(request) });
}

/**
 * Whatever else fails leaves the cookie alone: the token in it may be good, and an app whose cookie is gone
 * has signed the person out.
 */
const isSessionOver = (error: unknown): boolean =>
  error instanceof OAuthError && error.context.isSessionOver === true;

/** RFC 6749 §5.1; members that have no value are left out, never null. */
const tokenBody = (issued: IssuedTokens, refreshToken: string | undefined) => ({
  access_token: issued.accessToken,
  token_type: 'Bearer',
  expires_in: issued.expiresInSeconds,
  refresh_token: refreshToken,
  scope: formatScope(issued.grantedScope),
});

/** Work that begins later would be answered after the five seconds that a client waits. */
const MAXIMUM_WAIT_MILLISECONDS = 4000;

function abandonmentOf(request: FastifyRequest): () => boolean {
  const arrivedAt = performance.now();
  return () =>
    request.raw.socket.destroyed || performance.now() - arrivedAt > MAXIMUM_WAIT_MILLISECONDS;
}

function originOf(request: FastifyRequest, deviceLabel: string | undefined): RequestOrigin {
  if ([...(deviceLabel ?? '')].length > MAXIMUM_DEVICE_LABEL_CHARACTERS) {
    throw invalidRequest('device_label is too long');
  }
  return {
    address: addressOf(request),
    network: networkOf(request),
    userAgent: request.headers['user-agent']?.slice(0, MAXIMUM_USER_AGENT_CHARACTERS),
    deviceLabel,
  };
}
