/** The composition root: from the configuration to everything that a command or the server works with. */
import { availableParallelism } from 'node:os';
import { type Config, isCookieDeliverySafe } from './config.ts';
import { createHashGate } from './crypto/hash-gate.ts';
import { createPasswordHasher } from './crypto/password-hasher.ts';
import {
  type AuthorizationServer,
  createAuthorizationServer,
} from './oauth/authorization-server.ts';
import { passwordGrant } from './oauth/grants/password-grant.ts';
import { refreshTokenGrant } from './oauth/grants/refresh-token-grant.ts';
import type { OriginStore, TokenStore } from './oauth/ports.ts';
import type { RequestCounter } from './request-counter.ts';
import { type ClientRegistry, createClientRegistry } from './storage/client-registry.ts';
import { type Database, openDatabase } from './storage/database.ts';
import {
  EMBEDDED_DATABASE,
  type EmbeddedPostgres,
  startEmbeddedPostgres,
} from './storage/embedded-postgres.ts';
import { createEventRegistry, type EventRegistry } from './storage/event-registry.ts';
import { createFailureCounters, uncounted } from './storage/failure-counters.ts';
import { openLoginPool } from './storage/login-pool.ts';
import { migrate } from './storage/migrate.ts';
import { createOriginStore } from './storage/origin-store.ts';
import { createRedisCounter } from './storage/redis-counter.ts';
import {
  createResourceOwnerRegistry,
  createResourceOwnerStore,
  type ResourceOwnerRegistry,
} from './storage/resource-owner-registry.ts';
import { createSessionRegistry, type SessionRegistry } from './storage/session-registry.ts';
import { createTokenStore } from './storage/token-store.ts';

/** What was opened, and all that works on it. */
export interface Dependencies {
  readonly config: Config;
  readonly database: Database;
  readonly tokens: TokenStore;
  readonly authorizationServer: AuthorizationServer;
  readonly origins: OriginStore;
  /** Shared with other instances; undefined without Redis. */
  readonly requestCounter: RequestCounter | undefined;
  readonly clients: ClientRegistry;
  readonly resourceOwners: ResourceOwnerRegistry;
  readonly sessions: SessionRegistry;
  readonly events: EventRegistry;
  /** Names of the migrations that were applied on the way. */
  readonly appliedMigrations: readonly string[];
  /** Closes the pool, and the embedded PostgreSQL unless somebody else uses it. */
  close(): Promise<void>;
}

export interface DependencyOptions {
  /** Applies pending migrations first. The embedded database is always brought up to date. */
  readonly isMigrating: boolean;
  /** Receives lines about where data is kept, when that is not where one would look. */
  readonly notice: (line: string) => void;
  /** Aborted when nothing more is to be opened. */
  readonly stopping?: AbortSignal;
}

/**
 * @throws StartUpError when there is no database to work with
 * @throws the reason of `stopping`, with nothing left open
 */
export async function createDependencies(
  config: Config,
  { isMigrating, notice, stopping }: DependencyOptions,
): Promise<Dependencies> {
  const { dataDir } = config;
  const embedded =
    config.databaseUrl === undefined
      ? await startEmbeddedPostgres({ dataDir, notice, stopping })
      : undefined;
  try {
    stopping?.throwIfAborted();
    const databaseUrl = config.databaseUrl ?? (embedded as EmbeddedPostgres).url(EMBEDDED_DATABASE);
    const appliedMigrations =
      isMigrating || embedded !== undefined
        ? await migrate(config.migrationDatabaseUrl ?? databaseUrl)
        : [];
    stopping?.throwIfAborted();
    const database = await openDatabase({ ...config, databaseUrl });
    return { ...compose({ ...config, databaseUrl }, database, embedded), appliedMigrations };
  } catch (error) {
    await embedded?.stopIfIdle();
    throw error;
  }
}

function compose(
  config: Config & { readonly databaseUrl: string },
  database: Database,
  embedded: EmbeddedPostgres | undefined,
): Omit<Dependencies, 'appliedMigrations'> {
  const permits = Math.max(1, Math.floor(availableParallelism() / config.workers));
  const gate = createHashGate({ permits, queueLimit: config.hashQueueLimit });
  // Before anything is asked for them: what could not be hashed in time costs nothing.
  const admit = createHashGate({ permits: permits + config.hashQueueLimit, queueLimit: 0 });
  const passwords = createPasswordHasher(config.argon2, gate);
  const tokens = createTokenStore(database, config);
  const loginPool = openLoginPool({
    databaseUrl: config.databaseUrl,
    maximumConnections: config.maximumLoginConnections,
    deadlineSeconds: config.loginDeadlineSeconds,
  });
  const loginBounds = { ...config, maximumInFlight: config.maximumLoginConnections };
  const resourceOwnerStore = createResourceOwnerStore(database, loginPool, loginBounds);
  const failures = config.isRateLimitOn ? createFailureCounters(loginPool, loginBounds) : uncounted;
  const grants = [
    ...(config.isPasswordGrantOn
      ? [passwordGrant({ tokens, resourceOwners: resourceOwnerStore, passwords, failures, admit })]
      : []),
    refreshTokenGrant(tokens),
  ];
  const redis =
    config.redisUrl !== undefined && config.isRateLimitOn
      ? createRedisCounter(config.redisUrl)
      : undefined;
  const cookies = { isCookieDeliverySafe: isCookieDeliverySafe(config) };
  return {
    config,
    database,
    tokens,
    authorizationServer: createAuthorizationServer({ tokens, failures }, grants, cookies),
    origins: createOriginStore(database),
    requestCounter: redis,
    clients: createClientRegistry(database, cookies),
    resourceOwners: createResourceOwnerRegistry(database, passwords),
    sessions: createSessionRegistry(database),
    events: createEventRegistry(database),
    async close() {
      redis?.close();
      await loginPool.close();
      await database.close();
      await embedded?.stopIfIdle();
    },
  };
}
