/** OpenAPI 3.1 from the route schemas, and Swagger UI to try them. */
import helmet from '@fastify/helmet';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance } from 'fastify';
import { version } from '../version.ts';

/** Collects the routes that are registered after it; `app.swagger()` is the document. */
export async function collectOpenApi(app: FastifyInstance): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Heirloom',
        version,
        description:
          'OAuth 2.0 authorization server with opaque tokens on PostgreSQL: RFC 6749, 7009, 7662 and 8414.',
        license: { name: 'MIT', identifier: 'MIT' },
      },
      servers: [{ url: '/' }],
      tags: [
        { name: 'OAuth', description: 'Tokens: get, revoke and check them.' },
        { name: 'Discovery', description: 'What this server can do.' },
        { name: 'Health', description: 'For supervisors and load balancers.' },
      ],
      components: {
        securitySchemes: {
          client_secret_basic: {
            type: 'http',
            scheme: 'basic',
            description: 'client_id and client_secret, RFC 6749 section 2.3.1.',
          },
          password: {
            type: 'oauth2',
            description: 'Log a person in. A public client leaves client_secret empty.',
            flows: {
              password: {
                tokenUrl: '/token',
                refreshUrl: '/token',
                scopes: { read: 'As the demo client has it.', write: 'As the demo client has it.' },
              },
            },
          },
        },
      },
    },
    hideUntagged: true,
  });
}

/** Swagger UI at `/docs`, the document at `/docs/json` and `/docs/yaml`. Nothing comes from elsewhere. */
export async function addDocs(app: FastifyInstance): Promise<void> {
  await app.register(async (docs) => {
    await docs.register(helmet, {
      contentSecurityPolicy: {
        useDefaults: false,
        directives: {
          'default-src': ["'none'"],
          'script-src': ["'self'"],
          // Swagger UI sets styles from its scripts.
          'style-src': ["'self'", "'unsafe-inline'"],
          'img-src': ["'self'", 'data:'],
          'font-src': ["'self'"],
          'connect-src': ["'self'"],
          'object-src': ["'none'"],
          'base-uri': ["'none'"],
          'form-action': ["'none'"],
          'frame-ancestors': ["'none'"],
        },
      },
      // Set for the whole server, where it is served over TLS.
      strictTransportSecurity: false,
    });
    await docs.register(swaggerUi, {
      routePrefix: '/docs',
      uiConfig: {
        deepLinking: true,
        // A reload forgets the tokens: nothing is kept in web storage.
        persistAuthorization: false,
        tryItOutEnabled: true,
        validatorUrl: null,
      },
    });
  });
}
