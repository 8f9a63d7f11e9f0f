/** OpenAPI 3.1 from the route schemas, and Swagger UI to try them. */
import helmet from '@fastify/helmet';
import swagger from '@fastify/swagger';
import swaggerUi from '@fastify/swagger-ui';
import type { FastifyInstance } from 'fastify';
import { version } from '../version.ts';
import { namedSchemas } from './schemas.ts';

export interface OpenApiOptions {
  /** Path of the issuer, below which browsers find the routes. */
  readonly path: string;
  readonly grantTypes: readonly string[];
}

/** Collects the routes that are registered after it; `app.swagger()` is the document. */
export async function collectOpenApi(app: FastifyInstance, options: OpenApiOptions): Promise<void> {
  await app.register(swagger, {
    openapi: {
      openapi: '3.1.0',
      info: {
        title: 'Heirloom',
        version,
        description:
          'OAuth 2.0 authorization server with opaque tokens on PostgreSQL: RFC 6749, 7009, 7662 and 8414.\n\n' +
          'Examples name the demo accounts, which exist on the embedded database only.',
        license: { name: 'MIT', identifier: 'MIT' },
      },
      servers: [{ url: options.path || '/' }],
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
            description:
              'Choose the client that makes the requests below where their `client_id` is empty, ' +
              'RFC 6749 section 2.3.1: the username is its client_id, the password its client_secret. ' +
              'To introspect as the resource server of the demo: `demo-api`, `demo-api-secret`.',
          },
          ...(options.grantTypes.includes('password') && {
            password: passwordScheme(options.path),
          }),
        },
      },
    },
    hideUntagged: true,
    // JSON Schema of OpenAPI 3.1 has constants, and some generators read an enumeration of `true` as any boolean.
    convertConstToEnum: false,
    // Schemas keep their names, which would be numbers otherwise.
    refResolver: { buildLocalReference: ({ $id }) => String($id) },
  });
  for (const [$id, schema] of Object.entries(namedSchemas(options.grantTypes))) {
    app.addSchema({ ...schema, $id });
  }
}

const passwordScheme = (path: string) => ({
  type: 'oauth2' as const,
  description:
    'Log a person in. For the demo: `alice`, `correct horse battery staple`, client_id ' +
    '`demo` and no client_secret. No scope ticked means every scope of the client. ' +
    'To see the tokens, execute `/token` below.',
  flows: {
    password: {
      tokenUrl: `${path}/token`,
      refreshUrl: `${path}/token`,
      scopes: { read: 'A scope of the demo.', write: 'A scope of the demo.' },
    },
  },
});

/**
 * Runs in the browser, on every request of Swagger UI, so nothing of this module is there.
 *
 * The browser would ask for a password of its own at each 401, keep it, and send it with whatever comes next.
 * And a form that names a client is of that client, whichever Swagger UI is authorised as: both would be refused
 * (RFC 6749 §2.3).
 */
const asOneClient = (request: {
  readonly body?: string;
  readonly headers?: Record<string, string>;
  credentials?: string;
}) => {
  if (request.body === undefined) return request;
  request.credentials = 'omit';
  if (new URLSearchParams(request.body).get('client_id')) delete request.headers?.['Authorization'];
  return request;
};

/** Swagger UI at `/docs`, the document at `/docs/json` and `/docs/yaml`. Nothing comes from elsewhere. */
export async function addDocs(app: FastifyInstance, path: string): Promise<void> {
  await app.register(async (docs) => {
    await docs.register(helmet, {
      contentSecurityPolicy: {
        useDefaults: false,
        directives: {
          'default-src': ["'none'"],
          'script-src': ["'self'"],
          'style-src': ["'self'"],
          // Swagger UI's style sheet holds its icons.
          'img-src': ["'self'", 'data:'],
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
      indexPrefix: path,
      theme: { title: 'Heirloom' },
      uiConfig: {
        // Without the top bar, which offers to open other documents and needs inline styles.
        layout: 'BaseLayout',
        deepLinking: true,
        // A reload forgets the tokens: nothing is kept in web storage.
        persistAuthorization: false,
        tryItOutEnabled: true,
        validatorUrl: null,
        requestInterceptor: asOneClient,
      },
    });
  });
}
