/** Builds the HTTP application: the same one in production and in tests. */
import { randomUUID } from 'node:crypto';
import type { AddressInfo, Socket } from 'node:net';
import rateLimit from '@fastify/rate-limit';
import fastify, { type FastifyInstance, LogController } from 'fastify';
import type { Config } from './config.ts';
import { addDocs, collectOpenApi } from './http/docs.ts';
import { handleError, handleNotFound } from './http/error-handler.ts';
import { parseForm } from './http/form.ts';
import { addHealthEndpoints } from './http/health-endpoints.ts';
import { addIntrospectionEndpoint } from './http/introspection-endpoint.ts';
import { addMetadataEndpoint } from './http/metadata-endpoint.ts';
import { addRevocationEndpoint } from './http/revocation-endpoint.ts';
import { addTokenEndpoint } from './http/token-endpoint.ts';
import type { AuthorizationServer } from './oauth/authorization-server.ts';
import { TemporarilyUnavailable } from './oauth/errors.ts';

export interface AppDependencies {
  readonly config: Config;
  readonly authorizationServer: AuthorizationServer;
  /** @throws TemporarilyUnavailable while the database does not answer */
  readonly checkReadiness: () => Promise<void>;
  /** Where log lines go; standard output unless a test wants to read them. */
  readonly logStream?: { write(line: string): void };
}

export async function buildApp(dependencies: AppDependencies): Promise<FastifyInstance> {
  const { config, authorizationServer, checkReadiness, logStream } = dependencies;
  const app = fastify({
    logger: {
      level: config.logLevel,
      timestamp: () => `,"time":"${new Date().toISOString()}"`,
      base: null,
      ...(logStream && { stream: logStream }),
    },
    // Two lines per request would say less than the one that each endpoint writes about its outcome.
    logController: new LogController({ disableRequestLogging: true }),
    // Chosen here and not by the caller, who could otherwise write into the log.
    requestIdHeader: false,
    genReqId: () => randomUUID(),
    bodyLimit: config.bodyLimitBytes,
    requestTimeout: config.requestTimeoutSeconds * 1000,
    keepAliveTimeout: config.keepAliveTimeoutSeconds * 1000,
    http: { headersTimeout: config.requestTimeoutSeconds * 1000, maxHeaderSize: 16 * 1024 },
    trustProxy: toTrustProxy(config.trustProxy),
    exposeHeadRoutes: true,
    return503OnClosing: false,
    clientErrorHandler: answerMalformedHttp,
    frameworkErrors: handleError,
  });
  // Bodies and parameters are checked by our own strict parser; the schemas are for OpenAPI.
  app.setValidatorCompiler(() => () => true);
  app.setSerializerCompiler(() => (body) => JSON.stringify(body));
  app.setErrorHandler(handleError);
  app.setNotFoundHandler(handleNotFound);

  let isStopping = false;
  app.addHook('preClose', async () => {
    isStopping = true;
  });
  addCommonHeaders(app, config, () => isStopping);
  acceptFormsOnly(app);

  await collectOpenApi(app);
  if (config.isRateLimitOn) {
    await app.register(rateLimit, {
      global: false,
      enableDraftSpec: true,
      errorResponseBuilder: () => Object.assign(new Error('rate limit'), { statusCode: 429 }),
    });
  }
  const issuer = () => config.issuer ?? `http://${listeningAddress(app, config.host)}`;
  addTokenEndpoint(app, authorizationServer);
  addRevocationEndpoint(app, authorizationServer);
  addIntrospectionEndpoint(app, authorizationServer, issuer);
  addMetadataEndpoint(app, authorizationServer, { configured: config.issuer, current: issuer });
  addHealthEndpoints(app, checkReadiness, () => isStopping);
  if (config.areDocsOn) await addDocs(app);
  return app;
}

/** `host:port` as a client would write it. */
export function listeningAddress(app: FastifyInstance, host: string): string {
  const [address] = app.addresses() as AddressInfo[];
  return `${host.includes(':') ? `[${host}]` : host}:${address?.port ?? 0}`;
}

function addCommonHeaders(app: FastifyInstance, config: Config, isStopping: () => boolean): void {
  const isTls = config.issuer?.startsWith('https:') ?? false;
  app.addHook('onRequest', async (request, reply) => {
    // RFC 6749 §5.1. On every route: a default that has to be remembered would be forgotten once.
    reply.header('cache-control', 'no-store');
    reply.header('x-content-type-options', 'nosniff');
    if (isTls) {
      reply.header('strict-transport-security', 'max-age=31536000; includeSubDomains');
    }
    if (isStopping()) {
      reply.header('connection', 'close');
      if (request.routeOptions.url !== '/livez') throw new TemporarilyUnavailable('stopping');
    }
  });
}

/** Only forms in UTF-8 and without a content coding are read; everything else is 415. */
function acceptFormsOnly(app: FastifyInstance): void {
  const unsupported = () =>
    Object.assign(new Error('unsupported media type'), { statusCode: 415, code: 'MEDIA_TYPE' });
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    'application/x-www-form-urlencoded',
    { parseAs: 'buffer' },
    async (request: { headers: Record<string, unknown> }, body: Buffer) => {
      if (!isUtf8Form(String(request.headers['content-type']))) throw unsupported();
      return parseForm(body);
    },
  );
  app.addHook('preParsing', async (request) => {
    const coding = request.headers['content-encoding'];
    if (coding !== undefined && coding.toLowerCase() !== 'identity') throw unsupported();
  });
}

/** RFC 6749 Appendix B: UTF-8, whether the charset is stated or not. */
const isUtf8Form = (contentType: string): boolean => {
  const charset = /;\s*charset\s*=\s*"?([^";\s]*)"?/i.exec(contentType)?.[1];
  return charset === undefined || charset.toLowerCase() === 'utf-8';
};

/** What Node itself refuses never reaches a route, so the answer is written to the socket by hand. */
function answerMalformedHttp(error: Error & { code?: string }, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return;
  const [status, reason] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? [431, 'Request Header Fields Too Large']
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? [408, 'Request Timeout']
        : [400, 'Bad Request'];
  const body = '{"error":"invalid_request"}';
  if (socket.writable) {
    socket.write(
      `HTTP/1.1 ${status} ${reason}\r\n` +
        'Content-Type: application/json; charset=utf-8\r\n' +
        'Cache-Control: no-store\r\nX-Content-Type-Options: nosniff\r\nConnection: close\r\n' +
        `Content-Length: ${body.length}\r\n\r\n${body}`,
    );
  }
  socket.destroySoon();
}

/** A number of hops trusts that many addresses, counted from the socket. */
function toTrustProxy(trusted: Config['trustProxy']) {
  if (trusted === false) return false;
  if (typeof trusted === 'number') return (_address: string, hop: number) => hop < trusted;
  return [...trusted];
}
