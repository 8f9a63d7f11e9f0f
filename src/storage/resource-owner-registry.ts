/** People: found for logins, and created and changed by administrators. Implements `ResourceOwnerStore`. */
import type { InferEntity } from '@mikro-orm/postgresql';
import { passwordWeakness } from '../crypto/password-policy.ts';
import type { PasswordHasher, ResourceOwnerStore, RevocationReason } from '../oauth/ports.ts';
import { normalizeUsername } from '../oauth/username.ts';
import { AdministrationError, NameTaken } from './administration-error.ts';
import { createCoalescer, type OrdinalRow, ordinalsOf } from './coalescer.ts';
import { type Database, isStatementFailure, isUniqueViolation } from './database.ts';
import { ResourceOwnerEntity } from './entities.ts';
import type { LoginBounds, LoginPool } from './login-pool.ts';
import {
  disableStatement,
  enableStatement,
  endFamiliesStatement,
  findResourceOwnerStatement,
  insertResourceOwnerStatement,
  setPasswordStatement,
  upgradePasswordHashStatement,
} from './resource-owner-statements.ts';
import type { Statement } from './statement.ts';

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
  database: Database,
  passwords: PasswordHasher,
): ResourceOwnerRegistry {
  const { orm } = database;

  /** Changes the person, then ends their families: two statements, in this order. */
  const changeAndEndSessions = (
    given: string,
    statement: Statement,
    values: readonly unknown[],
    reason: RevocationReason,
  ) =>
    database.transaction(async (run) => {
      const username = normalizeUsername(given);
      const [row] = await run<ResourceOwnerRow>(statement, [username, ...values]);
      if (row === undefined) throw unknownPerson(username);
      await run(endFamiliesStatement, [row.id, reason]);
      return fromRow(row);
    });

  return {
    async create(given, password, { isDemo } = { isDemo: false }) {
      const username = assertUsername(given);
      if (password !== undefined && !isDemo) assertAcceptable(password, username);
      const passwordHash = password === undefined ? null : await passwords.hash(password);
      const [row] = await database
        .run<ResourceOwnerRow>(insertResourceOwnerStatement, [username, passwordHash, isDemo])
        .catch((error) => {
          if (!isUniqueViolation(error)) throw error;
          throw new NameTaken(`The name ${JSON.stringify(username)} is taken.`);
        });
      return fromRow(row as ResourceOwnerRow);
    },

    async list() {
      const orderBy = { username: 'asc' } as const;
      return (await orm.em.fork().find(ResourceOwnerEntity, {}, { orderBy })).map(fromEntity);
    },

    async setPassword(given, password) {
      assertAcceptable(password, normalizeUsername(given));
      const passwordHash = await passwords.hash(password);
      return changeAndEndSessions(given, setPasswordStatement, [passwordHash], 'password_changed');
    },

    disable: (given) => changeAndEndSessions(given, disableStatement, [], 'disabled'),

    // The version moves, so that a login that was verified before the disable cannot complete.
    enable: (given) => changeAndEndSessions(given, enableStatement, [], 'disabled'),

    async delete(given) {
      const username = normalizeUsername(given);
      const owner = await orm.em.fork().findOne(ResourceOwnerEntity, { username });
      if (owner === null) throw unknownPerson(username);
      await orm.em.fork().nativeDelete(ResourceOwnerEntity, { subject: owner.subject });
      return fromEntity(owner);
    },
  };
}

/** Reads people for logins, on connections of their own, so that a flood of logins slows nothing else. */
export function createResourceOwnerStore(
  database: Database,
  loginPool: LoginPool,
  bounds: LoginBounds,
): ResourceOwnerStore {
  const find = createCoalescer<string, FoundResourceOwner>({
    ...bounds,
    isUndone: isStatementFailure,
    send: (usernames) =>
      loginPool.run<FoundResourceOwner>(findResourceOwnerStatement, [
        ordinalsOf(usernames),
        usernames,
      ]),
  });
  return {
    async findByUsername(username) {
      const row = await find(username);
      if (row.id === null) return undefined;
      return {
        subject: row.id,
        username: row.username,
        passwordHash: row.password_hash ?? undefined,
        credentialVersion: row.credential_version,
        isDisabled: row.is_disabled,
      };
    },

    async upgradePasswordHash({ subject, credentialVersion }, passwordHash) {
      const values = [subject, credentialVersion, passwordHash];
      await database.run(upgradePasswordHashStatement, values);
    },
  };
}

/** A person, or nobody. */
type FoundResourceOwner = OrdinalRow &
  (
    | { readonly id: null }
    | {
        readonly id: string;
        readonly username: string;
        readonly password_hash: string | null;
        readonly credential_version: number;
        readonly is_disabled: boolean;
      }
  );

interface ResourceOwnerRow {
  readonly id: string;
  readonly username: string;
  readonly has_password: boolean;
  readonly created_at: Date;
  readonly disabled_at: Date | null;
}

const fromRow = (row: ResourceOwnerRow): RegisteredResourceOwner => ({
  subject: row.id,
  username: row.username,
  hasPassword: row.has_password,
  createdAt: row.created_at,
  disabledAt: row.disabled_at,
});

const fromEntity = (owner: InferEntity<typeof ResourceOwnerEntity>): RegisteredResourceOwner => ({
  subject: owner.subject as string,
  username: owner.username,
  hasPassword: owner.passwordHash != null,
  createdAt: owner.createdAt as Date,
  disabledAt: owner.disabledAt ?? null,
});

const unknownPerson = (username: string) =>
  new AdministrationError(`There is no person ${JSON.stringify(username)}.`);

function assertAcceptable(password: string, username: string): void {
  const weakness = passwordWeakness(password, username);
  if (weakness !== undefined) throw new AdministrationError(`Not accepted: ${weakness}.`);
}

/** Stricter about control characters than RFC 6749 Appendix A.15: a name is something people type. */
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
