/** People: found for logins, and created and changed by administrators. Implements `ResourceOwnerStore`. */
import {
  type EntityManager,
  type InferEntity,
  raw,
  UniqueConstraintViolationException,
} from '@mikro-orm/postgresql';
import { passwordWeakness } from '../crypto/password-policy.ts';
import type { PasswordHasher, ResourceOwnerStore, RevocationReason } from '../oauth/ports.ts';
import { normalizeUsername } from '../oauth/username.ts';
import { AdministrationError, NameTaken } from './administration-error.ts';
import type { Database } from './database.ts';
import { ResourceOwnerEntity, TokenFamilyEntity } from './entities.ts';
import { findResourceOwnerStatement } from './hot-statements.ts';

export interface RegisteredResourceOwner {
  readonly subject: string;
  readonly username: string;
  readonly hasPassword: boolean;
  readonly createdAt: Date;
  readonly disabledAt: Date | null;
}

export interface ResourceOwnerRegistry {
  /** Without a password the person exists and cannot log in. Everybody knows the demo's password. */
  create(
    username: string,
    password: string | undefined,
    options?: { readonly isDemo: boolean },
  ): Promise<RegisteredResourceOwner>;
  list(): Promise<RegisteredResourceOwner[]>;
  /** Changes the password and ends all sessions of the person. */
  setPassword(username: string, password: string): Promise<RegisteredResourceOwner>;
  /** Refuses logins and ends all sessions. */
  disable(username: string): Promise<RegisteredResourceOwner>;
  /** Allows logins again; sessions that were ended stay ended. */
  enable(username: string): Promise<RegisteredResourceOwner>;
  /** Deletes the person and their sessions; the `sub` is never given again, the name may be. */
  delete(username: string): Promise<RegisteredResourceOwner>;
}

export function createResourceOwnerRegistry(
  { orm }: Database,
  passwords: PasswordHasher,
): ResourceOwnerRegistry {
  const find = async (em: EntityManager, given: string): Promise<RegisteredResourceOwner> => {
    const username = normalizeUsername(given);
    const owner = await em.findOne(ResourceOwnerEntity, { username });
    if (owner === null) {
      throw new AdministrationError(`There is no person ${JSON.stringify(username)}.`);
    }
    return registered(owner);
  };

  /**
   * Updates the person first and revokes their families in a second statement of the same READ
   * COMMITTED transaction. A login in flight holds a share lock on the person: the update waits for
   * it, and only a statement that starts afterwards sees the family it made.
   */
  const changeAndEndSessions = (given: string, values: object, reason: RevocationReason) =>
    orm.em.fork().transactional(async (em) => {
      const { subject } = await find(em, given);
      const version = { credentialVersion: raw('credential_version + 1') };
      await em.nativeUpdate(ResourceOwnerEntity, { subject }, { ...values, ...version });
      await em.nativeUpdate(
        TokenFamilyEntity,
        { resourceOwner: subject, revokedAt: null },
        { revokedAt: raw('clock_timestamp()'), revocationReason: reason },
      );
      return find(em.fork(), given);
    });

  return {
    async create(given, password, { isDemo } = { isDemo: false }) {
      const username = assertUsername(given);
      if (password !== undefined && !isDemo) assertAcceptable(password, username);
      const passwordHash = password === undefined ? null : await passwords.hash(password);
      const em = orm.em.fork();
      const owner = em.create(ResourceOwnerEntity, { username, passwordHash, isDemo });
      await em.flush().catch((error) => {
        if (!(error instanceof UniqueConstraintViolationException)) throw error;
        throw new NameTaken(`The name ${JSON.stringify(username)} is taken.`);
      });
      return registered(owner);
    },

    async list() {
      const orderBy = { username: 'asc' } as const;
      return (await orm.em.fork().find(ResourceOwnerEntity, {}, { orderBy })).map(registered);
    },

    async setPassword(given, password) {
      const { username } = await find(orm.em.fork(), given);
      assertAcceptable(password, username);
      const passwordHash = await passwords.hash(password);
      return changeAndEndSessions(given, { passwordHash }, 'password_changed');
    },

    disable: (given) =>
      changeAndEndSessions(given, { disabledAt: raw('clock_timestamp()') }, 'disabled'),

    // The version moves, so that a login that was verified before the disable cannot complete.
    enable: (given) => changeAndEndSessions(given, { disabledAt: null }, 'disabled'),

    async delete(given) {
      const owner = await find(orm.em.fork(), given);
      await orm.em.fork().nativeDelete(ResourceOwnerEntity, { subject: owner.subject });
      return owner;
    },
  };
}

/** Finds people for logins, with a named statement. */
export const createResourceOwnerStore = (database: Database): ResourceOwnerStore => ({
  async findByUsername(username) {
    const [row] = await database.run<{
      id: string;
      username: string;
      password_hash: string | null;
      credential_version: number;
      is_disabled: boolean;
    }>(findResourceOwnerStatement, [username]);
    if (row === undefined) return undefined;
    return {
      subject: row.id,
      username: row.username,
      passwordHash: row.password_hash ?? undefined,
      credentialVersion: row.credential_version,
      isDisabled: row.is_disabled,
    };
  },

  // The version stays: the password is the same, and sessions go on.
  async upgradePasswordHash(owner, passwordHash) {
    const { subject, credentialVersion } = owner;
    await database.orm.em
      .fork()
      .nativeUpdate(ResourceOwnerEntity, { subject, credentialVersion }, { passwordHash });
  },
});

const registered = (owner: InferEntity<typeof ResourceOwnerEntity>): RegisteredResourceOwner => ({
  subject: owner.subject as string,
  username: owner.username,
  hasPassword: owner.passwordHash != null,
  createdAt: owner.createdAt as Date,
  disabledAt: owner.disabledAt ?? null,
});

function assertAcceptable(password: string, username: string): void {
  const weakness = passwordWeakness(password, username);
  if (weakness !== undefined) throw new AdministrationError(`Not accepted: ${weakness}.`);
}

/** RFC 6749 Appendix A.15 allows no control characters; a name is also something people type. */
function assertUsername(given: string): string {
  const username = normalizeUsername(given);
  const characters = [...username].length;
  const isFit =
    characters >= 1 &&
    characters <= 255 &&
    username.trim() === username &&
    !/\p{Cc}/u.test(username);
  if (isFit) return username;
  throw new AdministrationError(
    'A user name has 1 to 255 characters, no control characters and no space at either end.',
  );
}
