/** SQL that puts the rows of token families into states that take long to come about. */
import { parseOpaqueToken } from '../../src/oauth/opaque-token.ts';
import type { Answer } from './client.ts';
import type { TestServer } from './server.ts';

const changed = (issuedAt: string, expiresAt: string): string => `array(
    select row(a.digest, a.scope, ${issuedAt}, ${expiresAt})::issued_access_token
    from unnest(access_tokens) a
  )`;

/** Assignments that move every instant of a family by `passed.time` into the past. */
export const shiftedFamily = `
  started_at = started_at - time, rotated_at = rotated_at - time, retry_until = retry_until - time,
  idle_expires_at = idle_expires_at - time, expires_at = expires_at - time,
  access_tokens = ${changed('a.issued_at - time', 'a.expires_at - time')}`;

/** The access tokens of a family, dead since this second. */
export const expiredAccessTokens = changed(
  'a.issued_at',
  `date_trunc('second', clock_timestamp())`,
);

/** Lets time pass for one family, while the service lives on. */
export async function age(
  { inspect }: TestServer,
  { body }: Answer,
  seconds: number,
): Promise<void> {
  const familyId = parseOpaqueToken(body.refresh_token)?.familyId;
  await inspect.query(
    `with passed as (select $2 * interval '1 second' as time), family as (
       update token_family set ${shiftedFamily} from passed where id = $1
     )
     update server_state
     set pulse_at = clock_timestamp(), outage_began_at = null, resumed_at = null`,
    [familyId, seconds],
  );
}
