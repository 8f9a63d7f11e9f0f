/** Tables with something in them, for plans that depend on how large they are. */
import type { TestServer } from './server.ts';

/** Creates people, numbered from first to last, with one family each through C1 and P1. */
export const seedFamilies = ({ inspect }: TestServer, first: number, last: number) =>
  inspect.query(
    `insert into resource_owner (username)
     select 'person-' || n from generate_series(${first}, ${last}) n;
     insert into token_family (
       id, lineage_digest, current_digest, client_key, resource_owner_id, scope, audience,
       started_at, idle_expires_at, expires_at, access_tokens
     )
     select gen_random_uuid(), sha256(o.id::text::bytea), sha256(o.username::bytea), c.key, o.id,
       'read', '{}', now(), now() + interval '7 days', now() + interval '30 days',
       array[row(
         sha256(random()::text::bytea), 'read', now(), now() + interval '15 minutes'
       )::issued_access_token]
     from resource_owner o, client c where c.client_id in ('C1', 'P1')
       and o.username in (select 'person-' || n from generate_series(${first}, ${last}) n)`,
  );
