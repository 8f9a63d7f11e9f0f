/** Sessions, which is what people call token families: listing and ending them. */
import { raw } from '@mikro-orm/postgresql';
import { normalizeUsername } from '../oauth/username.ts';
import { AdministrationError } from './administration-error.ts';
import { moveCutOff } from './cut-off.ts';
import type { Database } from './database.ts';
import { ResourceOwnerEntity, ServerStateEntity, TokenFamilyEntity } from './entities.ts';

/** A live session, without any token material. */
export interface Session {
  readonly id: string;
  readonly username: string | undefined;
  readonly clientId: string;
  readonly scope: string;
  readonly deviceLabel: string | null;
  readonly userAgent: string | null;
  readonly address: string | null;
  readonly startedAt: Date;
  readonly lastRefreshedAt: Date | null;
  readonly idleExpiresAt: Date;
  readonly expiresAt: Date;
}

export interface SessionRegistry {
  /**
   * Lists one person's live sessions, the latest first, with those of disabled clients: enabling such a
   * client brings them back.
   */
  list(username: string): Promise<Session[]>;
  /** Ends one session. */
  revoke(id: string): Promise<void>;
  /** Ends all sessions of one person; says how many. */
  revokeAll(username: string): Promise<{ readonly count: number; readonly subject: string }>;
  /** Ends every session there is by moving the global cut-off: after a leak, or a restored backup. */
  revokeEverything(): Promise<void>;
}

const uuid = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;

export function createSessionRegistry({ orm }: Database): SessionRegistry {
  const ended = () => ({
    revokedAt: raw('clock_timestamp()'),
    revocationReason: 'administrator' as const,
  });

  const subjectOf = async (given: string): Promise<string> => {
    const username = normalizeUsername(given);
    const owner = await orm.em.fork().findOne(ResourceOwnerEntity, { username });
    if (owner !== null) return owner.subject;
    throw new AdministrationError(`There is no person ${JSON.stringify(username)}.`);
  };

  return {
    async list(username) {
      const subject = await subjectOf(username);
      const em = orm.em.fork();
      const families = await em.find(
        TokenFamilyEntity,
        {
          resourceOwner: { subject, disabledAt: null },
          client: { deletedAt: null },
          revokedAt: null,
          expiresAt: { $gt: raw('clock_timestamp()') },
          idleExpiresAt: { $gt: raw('clock_timestamp()') },
        },
        { populate: ['client', 'resourceOwner'], orderBy: { startedAt: 'desc' } },
      );
      // Read after the families, so that whoever has just ended everything sees nothing.
      const server = await em.findOneOrFail(ServerStateEntity, { id: 1 });
      const live = families.filter(({ client, startedAt }) =>
        [client, server].every(
          ({ sessionsValidAfter: cutOff }) => cutOff == null || startedAt > cutOff,
        ),
      );
      return live.map((family) => ({
        id: family.familyId,
        username: family.resourceOwner?.username,
        clientId: family.client.clientId,
        scope: family.scope,
        deviceLabel: family.deviceLabel ?? null,
        userAgent: family.userAgent ?? null,
        address: family.address ?? null,
        startedAt: family.startedAt,
        lastRefreshedAt: family.rotatedAt ?? null,
        idleExpiresAt: family.idleExpiresAt,
        expiresAt: family.expiresAt,
      }));
    },

    async revoke(id) {
      const em = orm.em.fork();
      const isThere = uuid.test(id) && (await em.count(TokenFamilyEntity, { familyId: id })) > 0;
      if (!isThere) throw new AdministrationError(`There is no session ${JSON.stringify(id)}.`);
      await em.nativeUpdate(TokenFamilyEntity, { familyId: id, revokedAt: null }, ended());
    },

    async revokeAll(username) {
      const subject = await subjectOf(username);
      const families = { resourceOwner: subject, revokedAt: null };
      const count = await orm.em.fork().nativeUpdate(TokenFamilyEntity, families, ended());
      return { count, subject };
    },

    async revokeEverything() {
      const em = orm.em.fork();
      await moveCutOff(
        (sessionsValidAfter) =>
          em.nativeUpdate(ServerStateEntity, { id: 1 }, { sessionsValidAfter }),
        'true',
      );
    },
  };
}
