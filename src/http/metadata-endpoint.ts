/** `GET /.well-known/oauth-authorization-server`, RFC 8414. */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify';
import Type from 'typebox';
import type { AuthorizationServer } from '../oauth/authorization-server.ts';
import { refuseOtherMethods } from './endpoint.ts';
import { metadataErrors } from './schemas.ts';

const WELL_KNOWN = '/.well-known/oauth-authorization-server';

const confidentialMethods = ['client_secret_basic', 'client_secret_post'];

export function addMetadataEndpoint(
  app: FastifyInstance,
  server: AuthorizationServer,
  issuer: { readonly path: string; readonly current: () => string },
): void {
  const handler = async (_request: FastifyRequest, reply: FastifyReply) => {
    // The same public document for everybody, so every page may read it.
    reply.header('access-control-allow-origin', '*');
    return metadataBody(server, issuer.current());
  };
  app.get(
    WELL_KNOWN,
    {
      schema: {
        operationId: 'metadata',
        summary: 'What this server can do',
        tags: ['Discovery'],
        security: [],
        response: { 200: Type.Ref('Metadata'), ...metadataErrors },
      },
    },
    handler,
  );
  refuseOtherMethods(app, WELL_KNOWN, 'GET');
  // RFC 8414 §3.1: the issuer's path comes behind the well-known part.
  if (issuer.path !== '') {
    app.get(WELL_KNOWN + issuer.path, { schema: { hide: true } }, handler);
    refuseOtherMethods(app, WELL_KNOWN + issuer.path, 'GET');
  }
}

/**
 * Nothing of the request's `Host` or forwarding headers is in it (RFC 8414 §6.2). There is no
 * `response_types_supported`, because there is no authorization endpoint that could have any.
 */
function metadataBody(server: AuthorizationServer, issuer: string) {
  const base = issuer.replace(/\/$/, '');
  return {
    issuer,
    token_endpoint: `${base}/token`,
    token_endpoint_auth_methods_supported: [...confidentialMethods, 'none'],
    grant_types_supported: server.grantTypes,
    revocation_endpoint: `${base}/revoke`,
    revocation_endpoint_auth_methods_supported: [...confidentialMethods, 'none'],
    introspection_endpoint: `${base}/introspect`,
    introspection_endpoint_auth_methods_supported: confidentialMethods,
  };
}
