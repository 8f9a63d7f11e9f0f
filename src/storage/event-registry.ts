/** Security events, as the server and its commands have recorded them: listing. */
import type { Database } from './database.ts';
import { ResourceOwnerEntity, SecurityEventEntity } from './entities.ts';

/** A security event. What it names may be gone. */
export interface SecurityEvent {
  readonly occurredAt: Date;
  readonly kind: string;
  readonly clientId: string | null;
  readonly subject: string | null;
  /** Null also for a person who was deleted. */
  readonly username: string | null;
  readonly familyId: string | null;
  readonly address: string | null;
  /** Where the family was started from. */
  readonly familyAddress: string | null;
}

export interface EventRegistry {
  /** The last `count` of them, the latest first. */
  list(count: number): Promise<SecurityEvent[]>;
}

export function createEventRegistry({ orm }: Database): EventRegistry {
  return {
    async list(count) {
      const em = orm.em.fork();
      const orderBy = { occurredAt: 'desc', id: 'desc' } as const;
      const events = await em.find(SecurityEventEntity, {}, { orderBy, limit: count });
      const subjects = new Set(events.flatMap(({ subject }) => subject ?? []));
      const people = await em.find(ResourceOwnerEntity, { subject: { $in: [...subjects] } });
      const names = new Map(people.map(({ subject, username }) => [subject, username]));
      return events.map((event) => ({
        occurredAt: event.occurredAt as Date,
        kind: event.kind,
        clientId: event.clientId ?? null,
        subject: event.subject ?? null,
        username: names.get(event.subject ?? '') ?? null,
        familyId: event.familyId ?? null,
        address: event.address ?? null,
        familyAddress: event.familyAddress ?? null,
      }));
    },
  };
}
