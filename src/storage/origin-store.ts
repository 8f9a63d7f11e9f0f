/** Origins that clients have registered. Implements `OriginStore`. */
import { inTime } from '../deadline.ts';
import type { OriginStore, RegisteredOrigin } from '../oauth/ports.ts';
import { createCoalescer, type OrdinalRow, ordinalsOf } from './coalescer.ts';
import { type Database, isStatementFailure } from './database.ts';
import type { Statement } from './statement.ts';

/**
 * Finds what is registered for each origin: a row per request, with null where no client has it.
 *
 * Reads the client table, which is small; no index serves it. That is why one statement runs at a time.
 */
const findOriginsStatement: Statement = {
  name: 'heirloom-find-origins',
  text: `
  select
    r.ordinal,
    (
      select bool_or(c.delivery = 'cookie') from client c
      where r.origin = any (c.origins) and c.disabled_at is null and c.deleted_at is null
    ) as has_cookie_client
  from unnest($1::int[], $2::text[]) as r(ordinal, origin)`,
};

interface OriginRow extends OrdinalRow {
  has_cookie_client: boolean | null;
}

/** Origins remembered for the time when the database does not answer; the oldest is forgotten. */
const MAXIMUM_REMEMBERED = 1000;

/**
 * Asks the database each time, so that an origin counts from the moment it is registered and not longer
 * than it is. However many preflights come, one statement at a time answers all that wait.
 *
 * While the database does not answer, an origin is what it was when it last did: an app must be able to
 * read that it should come back later, and this decides about nothing but who may read a failure.
 */
export function createOriginStore(database: Pick<Database, 'run'>): OriginStore {
  const ask = createCoalescer<string, OriginRow>({
    maximumBatch: 64,
    maximumWaiting: 1024,
    maximumInFlight: 1,
    isUndone: isStatementFailure,
    send: (origins) =>
      database.run<OriginRow>(findOriginsStatement, [ordinalsOf(origins), origins]),
  });
  const remembered = new Map<string, RegisteredOrigin>();
  return {
    async find(origin, seconds) {
      try {
        const { has_cookie_client } = await inTime(ask(origin), seconds);
        remembered.delete(origin);
        if (has_cookie_client === null) return undefined;
        const found = { hasCookieClient: has_cookie_client };
        const [oldest] = remembered.keys();
        if (oldest !== undefined && remembered.size >= MAXIMUM_REMEMBERED) {
          remembered.delete(oldest);
        }
        remembered.set(origin, found);
        return found;
      } catch (error) {
        const last = remembered.get(origin);
        if (last === undefined) throw error;
        return last;
      }
    },
  };
}
