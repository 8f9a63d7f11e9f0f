/** Registering and changing clients: administrative work, done through the mapper. */
import { type InferEntity, raw, UniqueConstraintViolationException } from '@mikro-orm/postgresql';
import { isLoopback } from '../config.ts';
import {
  type ClientType,
  type GrantType,
  grantTypes,
  type IntrospectionRight,
  type RefreshTokenDelivery,
} from '../oauth/client.ts';
import { digest, generateClientSecret } from '../oauth/opaque-token.ts';
import { isScopeToken } from '../oauth/scope.ts';
import { AdministrationError, NameTaken } from './administration-error.ts';
import { moveCutOff } from './cut-off.ts';
import type { Database } from './database.ts';
import { ClientEntity, ClientSecretEntity } from './entities.ts';

/** What may be said about a client, at registration and later. Null lifetimes mean the server's default. */
export interface ClientSettings {
  readonly grantTypes: readonly string[];
  readonly scope: readonly string[];
  readonly introspectionRight: IntrospectionRight;
  readonly audience: readonly string[];
  readonly origins: readonly string[];
  readonly delivery: RefreshTokenDelivery;
  readonly accessTokenLifetimeSeconds: number | null;
  readonly refreshTokenIdleLifetimeSeconds: number | null;
  readonly refreshTokenLifetimeSeconds: number | null;
  readonly retryWindowSeconds: number | null;
}

export interface NewClient extends Partial<ClientSettings> {
  readonly clientId: string;
  readonly clientType: ClientType;
  /** For the demo and tests only; everybody else's secret is generated. */
  readonly clientSecret?: string;
  readonly isDemo?: boolean;
}

export interface RegisteredClient extends ClientSettings {
  readonly clientId: string;
  readonly clientType: ClientType;
  readonly createdAt: Date;
  readonly disabledAt: Date | null;
}

/** A client's secret, as much as may be told of it. */
export interface RegisteredSecret {
  readonly createdAt: Date;
  /** To the minute; null if it never was. */
  readonly lastUsedAt: Date | null;
  /** Null while it has not been rotated. */
  readonly expiresAt: Date | null;
}

/** How long the old secret of a client lives beside the new one, unless said otherwise. */
export const SECRET_OVERLAP_SECONDS = 24 * 60 * 60;

export interface ClientRegistry {
  /** Registers a client; the secret is in clear here and nowhere else ever again. */
  create(
    client: NewClient,
  ): Promise<{ client: RegisteredClient; clientSecret: string | undefined }>;
  list(): Promise<RegisteredClient[]>;
  /** Changes what is given and leaves the rest. Tokens that exist keep what they were issued with. */
  update(clientId: string, changes: Partial<ClientSettings>): Promise<RegisteredClient>;
  /** Adds a secret; those before it expire after the overlap. */
  rotateSecret(clientId: string, overlapSeconds: number): Promise<{ clientSecret: string }>;
  /** The secrets that are accepted, the newest first; a public client has none. */
  listSecrets(clientId: string): Promise<RegisteredSecret[]>;
  /** Refuses the client and suspends its tokens until it is enabled again. */
  disable(clientId: string): Promise<RegisteredClient>;
  enable(clientId: string): Promise<RegisteredClient>;
  /** Ends all sessions of the client for good; its name is free again when the last one is pruned. */
  delete(clientId: string): Promise<RegisteredClient>;
  /** Ends all sessions of the client by moving its cut-off: one row, however many there are. */
  endSessions(clientId: string): Promise<void>;
}

const defaultSettings: ClientSettings = {
  grantTypes: [],
  scope: [],
  introspectionRight: 'none',
  audience: [],
  origins: [],
  delivery: 'body',
  accessTokenLifetimeSeconds: null,
  refreshTokenIdleLifetimeSeconds: null,
  refreshTokenLifetimeSeconds: null,
  retryWindowSeconds: null,
};

/** @param isCookieDeliverySafe whether browsers would keep a cookie of this server */
export function createClientRegistry(
  { orm }: Database,
  { isCookieDeliverySafe }: { readonly isCookieDeliverySafe: boolean },
): ClientRegistry {
  const assertAcceptable = (clientType: ClientType, settings: ClientSettings): void => {
    assertSettings(clientType, settings);
    assertOrigins(settings.origins);
    if (settings.delivery === 'cookie') assertCookieDelivery(clientType, settings.origins);
    if (settings.delivery === 'cookie' && !isCookieDeliverySafe) {
      throw new AdministrationError(
        'Cookie delivery needs an ISSUER with https or on loopback: browsers keep the cookie nowhere else.',
      );
    }
  };

  const find = async (clientId: string): Promise<RegisteredClient> => {
    const client = await orm.em.fork().findOne(ClientEntity, { clientId, deletedAt: null });
    if (client === null) throw new AdministrationError(`There is no client ${quote(clientId)}.`);
    return registered(client);
  };

  const change = async (clientId: string, values: object): Promise<RegisteredClient> => {
    await orm.em.fork().nativeUpdate(ClientEntity, { clientId, deletedAt: null }, values);
    return find(clientId);
  };

  return {
    async create({ clientId, clientType, clientSecret, isDemo = false, ...given }) {
      const settings = { ...defaultSettings, ...given };
      assertClientId(clientId);
      assertAcceptable(clientType, settings);
      const secret =
        clientType === 'confidential' ? (clientSecret ?? generateClientSecret()) : undefined;
      const client = await orm.em
        .fork()
        .transactional(async (em) => {
          const created = em.create(ClientEntity, {
            ...writable(settings),
            clientId,
            clientType,
            isDemo,
          });
          if (secret !== undefined) {
            em.create(ClientSecretEntity, { client: created, digest: digest(secret) });
          }
          await em.flush();
          return registered(created);
        })
        .catch((error) => {
          if (!(error instanceof UniqueConstraintViolationException)) throw error;
          throw new NameTaken(
            `The client_id ${quote(clientId)} is taken, perhaps by a deleted client with tokens left.`,
          );
        });
      return { client, clientSecret: secret };
    },

    async list() {
      const orderBy = { clientId: 'asc' } as const;
      const clients = await orm.em.fork().find(ClientEntity, { deletedAt: null }, { orderBy });
      return clients.map(registered);
    },

    async update(clientId, changes) {
      const client = await find(clientId);
      assertAcceptable(client.clientType, { ...client, ...changes });
      return Object.keys(changes).length === 0 ? client : change(clientId, writable(changes));
    },

    async rotateSecret(clientId, overlapSeconds) {
      const { clientType } = await find(clientId);
      if (clientType === 'public') {
        throw new AdministrationError(`The client ${quote(clientId)} is public and has no secret.`);
      }
      const clientSecret = generateClientSecret();
      const oldEnd = raw(`clock_timestamp() + ? * interval '1 second'`, [overlapSeconds]);
      await orm.em.fork().transactional(async (em) => {
        const client = await em.findOneOrFail(ClientEntity, { clientId, deletedAt: null });
        // An older secret that ends sooner keeps its end.
        await em.nativeUpdate(
          ClientSecretEntity,
          { client, $or: [{ expiresAt: null }, { expiresAt: { $gt: oldEnd } }] },
          { expiresAt: oldEnd },
        );
        await em.insert(ClientSecretEntity, { client, digest: digest(clientSecret) });
      });
      return { clientSecret };
    },

    async listSecrets(clientId) {
      await find(clientId);
      const isAccepted = [
        { expiresAt: null },
        { expiresAt: { $gt: raw<Date>('clock_timestamp()') } },
      ];
      const secrets = await orm.em
        .fork()
        .find(
          ClientSecretEntity,
          { client: { clientId, deletedAt: null }, $or: isAccepted },
          { orderBy: { createdAt: 'desc' } },
        );
      return secrets.map(({ createdAt, lastUsedAt, expiresAt }) => ({
        createdAt: createdAt as Date,
        lastUsedAt: lastUsedAt ?? null,
        expiresAt: expiresAt ?? null,
      }));
    },

    disable: (clientId) => change(clientId, { disabledAt: raw('clock_timestamp()') }),
    enable: (clientId) => change(clientId, { disabledAt: null }),

    async delete(clientId) {
      const client = await find(clientId);
      await orm.em
        .fork()
        .nativeUpdate(ClientEntity, { clientId }, { deletedAt: raw('clock_timestamp()') });
      return client;
    },

    async endSessions(clientId) {
      await find(clientId);
      await moveCutOff(
        (sessionsValidAfter) => change(clientId, { sessionsValidAfter }),
        'client_key = (select key from client where client_id = ?)',
        [clientId],
      );
    },
  };
}

const quote = (text: string): string => JSON.stringify(text);

const registered = (client: InferEntity<typeof ClientEntity>): RegisteredClient => ({
  clientId: client.clientId,
  clientType: client.clientType,
  grantTypes: client.grantTypes,
  scope: client.scope,
  introspectionRight: client.introspectionRight,
  audience: client.audience,
  origins: client.origins,
  delivery: client.delivery,
  accessTokenLifetimeSeconds: client.accessTokenLifetimeSeconds ?? null,
  refreshTokenIdleLifetimeSeconds: client.refreshTokenIdleLifetimeSeconds ?? null,
  refreshTokenLifetimeSeconds: client.refreshTokenLifetimeSeconds ?? null,
  retryWindowSeconds: client.retryWindowSeconds ?? null,
  createdAt: client.createdAt as Date,
  disabledAt: client.disabledAt ?? null,
});

/** The mapper wants arrays that it may keep. */
const writable = <Settings extends Partial<ClientSettings>>(settings: Settings) => ({
  ...settings,
  ...(settings.grantTypes && { grantTypes: [...settings.grantTypes] as GrantType[] }),
  ...(settings.scope && { scope: [...settings.scope] }),
  ...(settings.audience && { audience: [...settings.audience] }),
  ...(settings.origins && { origins: [...settings.origins] }),
});

/** RFC 6749 Appendix A.1 allows all printable characters; these survive every encoding as they are. */
function assertClientId(clientId: string): void {
  if (/^[A-Za-z0-9._~-]{1,100}$/.test(clientId)) return;
  throw new AdministrationError(
    'A client_id has 1 to 100 letters, digits, dots, hyphens, underscores and tildes.',
  );
}

function assertSettings(clientType: ClientType, settings: ClientSettings): void {
  const refuse = (reason: string): never => {
    throw new AdministrationError(reason);
  };
  for (const grantType of settings.grantTypes) {
    if (!grantTypes.some((known) => known === grantType)) {
      refuse(`There is no grant ${quote(grantType)}; there are ${grantTypes.join(' and ')}.`);
    }
  }
  // The mapper writes the word null into an array as the absence of a value.
  if ([...settings.scope, ...settings.audience].some((word) => word.toLowerCase() === 'null')) {
    refuse('A scope or an audience cannot be called null.');
  }
  if (!settings.scope.every(isScopeToken)) {
    refuse('A scope is one word of printable ASCII without quotes and backslashes.');
  }
  if (settings.grantTypes.length > 0 && settings.scope.length === 0) {
    refuse('A client that gets tokens needs at least one scope.');
  }
  if (clientType === 'public' && settings.introspectionRight !== 'none') {
    refuse(
      'A public client cannot introspect, because it cannot authenticate (RFC 7662 section 4).',
    );
  }
  if (!settings.audience.every((audience) => /^[\x21-\x7e]{1,255}$/.test(audience))) {
    refuse('An audience is a URI or a name without spaces.');
  }
  const { refreshTokenIdleLifetimeSeconds: idle, refreshTokenLifetimeSeconds: absolute } = settings;
  if (idle !== null && absolute !== null && idle > absolute) {
    refuse('The idle lifetime of refresh tokens must not exceed their lifetime.');
  }
  const { retryWindowSeconds: retry, accessTokenLifetimeSeconds: access } = settings;
  if (retry !== null && access !== null && retry >= access) {
    refuse("The retry window must be below the access token's lifetime.");
  }
}

/** RFC 6454 §6.1: exactly as browsers write it, since that is what it is compared with. */
function assertOrigins(origins: readonly string[]): void {
  for (const origin of origins) {
    const url = URL.canParse(origin) ? new URL(origin) : undefined;
    if (url?.origin === origin && /^https?:$/.test(url.protocol)) continue;
    throw new AdministrationError(`${quote(origin)} is not an origin such as https://app.example.`);
  }
}

/** RFC 6265bis: to a page over plain HTTP our site is another one, except on this machine. */
const isOfSecureApp = (origin: string): boolean => {
  const { protocol, hostname } = new URL(origin);
  return protocol === 'https:' || isLoopback(hostname);
};

/** A cookie is a browser's, where a secret cannot be kept; and its origin is how its app is told from others. */
function assertCookieDelivery(clientType: ClientType, origins: readonly string[]): void {
  const reason =
    clientType === 'confidential'
      ? 'Cookie delivery is for public clients: apps in browsers, which can keep no secret.'
      : origins.length === 0
        ? 'Cookie delivery needs at least one --origin: requests from elsewhere are refused.'
        : origins.every(isOfSecureApp)
          ? undefined
          : 'Cookie delivery needs origins with https, or on loopback.';
  if (reason !== undefined) throw new AdministrationError(reason);
}
