/** The application of production, on a database of its own and a free port. */
import type { FastifyInstance } from 'fastify';
import type pg from 'pg';
import type { Test } from 'tap';
import { buildApp } from '../../src/app.ts';
import { type Config, loadConfig } from '../../src/config.ts';
import { createDependencies, type Dependencies } from '../../src/dependencies.ts';
import { listeningAddress } from '../../src/listening-address.ts';
import type { RequestCounter } from '../../src/request-counter.ts';
import { createTestDatabase, type TestDatabase } from './database.ts';

export interface TestServer {
  readonly url: string;
  readonly app: FastifyInstance;
  readonly dependencies: Dependencies;
  readonly databaseUrl: string;
  readonly inspect: pg.Pool;
  /** Every log line so far. */
  readonly logs: string[];
}

/** Hashing that takes no time; what it costs in production has tests of its own. */
export const cheapArgon2 = { memoryKibibytes: 1024, iterations: 2, parallelism: 1 };

/**
 * Machines that run tests stand still for seconds now and then, and what waits for no more than one or two would
 * be refused. Rows that others hold are waited for as in production, since tests hold them.
 */
const patience = {
  acquireTimeoutSeconds: 10,
  statementTimeoutSeconds: 15,
  loginDeadlineSeconds: 5,
  answerDeadlineSeconds: 40,
} satisfies Partial<Config>;

export interface TestServerOptions extends Partial<Config> {
  /** A database to share with another server. */
  readonly database?: TestDatabase;
  /** In place of Redis: a counter whose windows a test can choose. */
  readonly sharedCounter?: RequestCounter;
}

/** Starts a server that closes itself when the test ends. Lifetimes and all else can be overridden. */
export async function startServer(t: Test, options: TestServerOptions = {}): Promise<TestServer> {
  const { database: shared, sharedCounter, ...overrides } = options;
  const database = shared ?? (await createTestDatabase(t));
  const config: Config = {
    ...loadConfig({ DATABASE_URL: database.url, DOCS: 'on', LOG_LEVEL: 'debug', PORT: '0' }),
    argon2: cheapArgon2,
    ...patience,
    // Nobody asks any more when a test ends.
    drainSeconds: 0,
    // The suite runs with batches of one, too, and must not notice.
    ...(process.env['MAXIMUM_BATCH'] && { maximumBatch: Number(process.env['MAXIMUM_BATCH']) }),
    ...overrides,
  };
  const dependencies = await createDependencies(config, { isMigrating: false, notice: () => {} });
  await dependencies.tokens.recordPulse();
  const logs: string[] = [];
  const app = await buildApp({
    config,
    authorizationServer: dependencies.authorizationServer,
    origins: dependencies.origins,
    sharedCounter: sharedCounter ?? dependencies.requestCounter,
    checkReadiness: () => dependencies.database.checkConnection(),
    logStream: { write: (line: string) => void logs.push(line) },
  });
  await app.listen({ host: config.host, port: config.port });
  t.teardown(async () => {
    await app.close();
    await dependencies.close();
  });
  const url = `http://${listeningAddress(app, config.host)}`;
  return { url, app, dependencies, databaseUrl: database.url, inspect: database.inspect, logs };
}
