/** Statements beside the hot paths: few requests cause them, and hardly any waits. Held to the same rules. */
import { MAXIMUM_RETRY_WINDOW_SECONDS } from '../oauth/client.ts';
import type { Statement } from './statement.ts';

/**
 * Records an event about a family that goes on.
 *
 * Index: token_family_pkey.
 */
export const recordSecurityEventStatement: Statement = {
  name: 'heirloom-record-security-event',
  text: `
  insert into security_event (kind, family_id, client_id, subject, address, family_address)
  select $1, id, $3, resource_owner_id, $4, address from token_family where id = $2`,
};

/**
 * Writes the sign of life and, where the last one is too old, the outage.
 *
 * An outage that began while windows of the one before it could still be open continues that one: only
 * one outage is remembered, and no window may be lost between two.
 *
 * A clock that leaps ahead and is set right leaves an outage that ends in the future, and until then no
 * window would ever be over: such an outage ends with the first pulse by the right clock.
 *
 * Index: server_state_pkey.
 */
export const pulseStatement: Statement = {
  name: 'heirloom-pulse',
  text: `
  update server_state set
    outage_began_at = case
      when clock_timestamp() - pulse_at <= $1 * interval '1 second' then outage_began_at
      when pulse_at < resumed_at + interval '${MAXIMUM_RETRY_WINDOW_SECONDS} seconds' then outage_began_at
      else pulse_at
    end,
    resumed_at = case
      when clock_timestamp() - pulse_at <= $1 * interval '1 second'
        and coalesce(resumed_at <= clock_timestamp(), true) then resumed_at
      else clock_timestamp()
    end,
    pulse_at = clock_timestamp()
  where id = 1`,
};

/**
 * Notes when a client secret was last used, at most once a minute.
 *
 * Index: client_secret_pkey.
 */
export const noteSecretUseStatement: Statement = {
  name: 'heirloom-note-secret-use',
  text: `
  update client_secret set last_used_at = clock_timestamp()
  where client_key = $1 and digest = $2
    and (last_used_at is null or last_used_at < clock_timestamp() - interval '1 minute')`,
};
