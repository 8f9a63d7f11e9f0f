/** Builds the HTTP application: the same one in production and in tests. */
import { randomUUID } from 'node:crypto';
import type { Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import cookie from '@fastify/cookie';
import fastify, { type FastifyInstance, LogController } from 'fastify';
import { type Config, issuerPath } from './config.ts';
import { inTime } from './deadline.ts';
import { checkOnArrival, commonHeaders, type Ending } from './http/arrival.ts';
import { createCors } from './http/cors.ts';
import { addDocs, collectOpenApi } from './http/docs.ts';
import { handleError, handleNotFound } from './http/error-handler.ts';
import { acceptFormsOnly } from './http/form-bodies.ts';
import { addHealthEndpoints } from './http/health-endpoints.ts';
import { addIntrospectionEndpoint } from './http/introspection-endpoint.ts';
import { answerMalformedHttp, writeFailure } from './http/malformed-http.ts';
import { addMetadataEndpoint } from './http/metadata-endpoint.ts';
import { addRequestLimits } from './http/request-limits.ts';
import { addRevocationEndpoint } from './http/revocation-endpoint.ts';
import { addTokenEndpoint } from './http/token-endpoint.ts';
import { listeningAddress } from './listening-address.ts';
import { loggerOptions } from './logger-options.ts';
import type { AuthorizationServer } from './oauth/authorization-server.ts';
import type { OriginStore } from './oauth/ports.ts';
import { createLocalCounter, type RequestCounter, withLocalFallback } from './request-counter.ts';

/** What the application answers with; it opens and closes none of it. */
export interface AppDependencies {
  readonly config: Config;
  readonly authorizationServer: AuthorizationServer;
  /** Asked about requests that name no client, such as preflights. */
  readonly origins: OriginStore;
  /** Counts requests together with other instances; undefined: this one counts alone. */
  readonly sharedCounter?: RequestCounter | undefined;
  /** @throws TemporarilyUnavailable while the database does not answer */
  readonly checkReadiness: () => Promise<void>;
  /** Whether the process has been told to end, some time before `close()`. */
  readonly isLeaving?: () => boolean;
  /** Where log lines go; standard output unless a test wants to read them. */
  readonly logStream?: { write(line: string): void };
}

/** Builds the application, which listens nowhere yet. `close()` drains it before it ends connections. */
export async function buildApp(dependencies: AppDependencies): Promise<FastifyInstance> {
  const { config, authorizationServer, origins, checkReadiness, logStream } = dependencies;
  const { isLeaving = () => false } = dependencies;
  const { answerDeadlineSeconds } = config;
  const headers = commonHeaders(config);
  const app = fastify({
    logger: { ...loggerOptions(config), ...(logStream && { stream: logStream }) },
    // Two lines per request would say less than the one that each endpoint writes about its outcome.
    logController: new LogController({ disableRequestLogging: true }),
    // Chosen here and not by the caller, who could otherwise write into the log.
    requestIdHeader: false,
    genReqId: () => randomUUID(),
    bodyLimit: config.bodyLimitBytes,
    requestTimeout: config.requestTimeoutSeconds * 1000,
    keepAliveTimeout: config.keepAliveTimeoutSeconds * 1000,
    http: {
      headersTimeout: config.requestTimeoutSeconds * 1000,
      // How often Node looks for requests that are overdue; its 30 s would triple the timeout.
      connectionsCheckingInterval: 1000,
      maxHeaderSize: 16 * 1024,
      // Node would answer with an empty body; `checkOnArrival` refuses it instead.
      requireHostHeader: false,
    },
    trustProxy: toTrustProxy(config.trustProxy),
    exposeHeadRoutes: true,
    return503OnClosing: false,
    clientErrorHandler: (error, socket) => answerMalformedHttp(error, socket, headers),
    // For URLs that cannot be decoded: no hook runs before it.
    frameworkErrors: (error, request, reply) => handleError(error, request, reply.headers(headers)),
  });
  app.server.maxConnections = config.maximumClientConnections;
  // Neither reaches a route by itself. An expectation may be ignored (RFC 9110 §10.1.1), CONNECT may not.
  app.server.on('checkExpectation', app.routing);
  app.server.on('connect', (_request, socket) => writeFailure(socket as Socket, 501, headers));
  // Bodies and parameters are checked by our own strict parser; the schemas are for OpenAPI.
  app.setValidatorCompiler(() => () => true);
  app.setSerializerCompiler(() => (body) => JSON.stringify(body));
  app.setErrorHandler(handleError);
  app.setNotFoundHandler(handleNotFound);

  let isStopping = false;
  const ending: Ending = {
    isTold: () => isStopping || isLeaving(),
    // After a delay nobody sends here any more but those who know no better: they are answered.
    isRefusing: () => isStopping && config.shutdownDelaySeconds === 0,
  };
  app.addHook('preClose', async () => {
    isStopping = true;
    // A server that is closed does not look for overdue requests any more, and would wait for them for ever.
    setTimeout(() => app.server.closeAllConnections(), config.requestTimeoutSeconds * 1000).unref();
    // Connections that look idle may have a request on the wire: closed now, it would be lost.
    await delay(config.drainSeconds * 1000);
  });
  checkOnArrival(app, config, headers, ending);
  acceptFormsOnly(app);

  const path = issuerPath(config.issuer);
  await collectOpenApi(app, { path, grantTypes: authorizationServer.grantTypes });
  if (config.isRateLimitOn) {
    await addRequestLimits(app, requestCounter(app, dependencies.sharedCounter));
  }
  const issuer = issuerOf(app, config);
  // In a scope of their own: cookies are for apps in browsers, and cost nobody else a hook.
  await app.register(async (apps) => {
    // Parses nothing by itself; the cookies of one client are read where its name is known.
    await apps.register(cookie, { hook: false });
    const cors = createCors(origins, answerDeadlineSeconds);
    const options = { cors, cookiePath: config.cookiePath, answerDeadlineSeconds };
    addTokenEndpoint(apps, authorizationServer, options);
    addRevocationEndpoint(apps, authorizationServer, options);
  });
  addIntrospectionEndpoint(app, authorizationServer, { issuer, answerDeadlineSeconds });
  addMetadataEndpoint(app, authorizationServer, { path, current: issuer });
  const checkInTime = () => inTime(checkReadiness(), answerDeadlineSeconds);
  addHealthEndpoints(app, checkInTime, ending.isTold);
  if (config.areDocsOn) await addDocs(app, path);
  return app;
}

/** Says in the log when limits are no longer shared, and when they are again. */
function requestCounter(
  { log }: FastifyInstance,
  shared: RequestCounter | undefined,
): RequestCounter {
  if (shared === undefined) return createLocalCounter();
  return withLocalFallback(shared, {
    pauseMilliseconds: 1000,
    onLost: (error) => log.warn({ event: 'limits_local', reason: (error as Error).message }),
    onShared: () => log.info({ event: 'limits_shared' }),
  });
}

/** The configured issuer, or the address once there is one; asking the socket each time costs a request's tenth. */
function issuerOf(app: FastifyInstance, config: Config): () => string {
  const current = () => `http://${listeningAddress(app, config.host)}`;
  let { issuer } = config;
  app.addHook('onListen', async () => {
    issuer ??= current();
  });
  return () => issuer ?? current();
}

/** A number of hops trusts that many addresses, counted from the socket. */
function toTrustProxy(trusted: Config['trustProxy']) {
  if (trusted === false) return false;
  if (typeof trusted === 'number') return (_address: string, hop: number) => hop < trusted;
  return [...trusted];
}
