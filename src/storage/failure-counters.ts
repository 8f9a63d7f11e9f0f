/** Failed credentials, counted in PostgreSQL: exact across processes and restarts. Implements `FailureCounters`. */
import { createHash } from 'node:crypto';
import type {
  ClientFailures,
  FailedClientAuthentication,
  FailureCounters,
  LoginAttempt,
  LoginReservation,
} from '../oauth/ports.ts';
import { createCoalescer, type OrdinalRow, ordinalsOf } from './coalescer.ts';
import { isStatementFailure } from './database.ts';
import {
  clearLoginStatement,
  countClientFailureStatement,
  MAXIMUM_CLIENT_FAILURES,
  MAXIMUM_NETWORK_FAILURES,
  MAXIMUM_PAIR_FAILURES,
  nameKeyStatement,
  recordGuessingStatement,
  releaseLoginStatement,
  reserveLoginStatement,
} from './failure-statements.ts';
import type { LoginBounds, LoginPool } from './login-pool.ts';

/** The rows of one attempt. */
interface LoginKeys {
  readonly pair: Buffer;
  readonly network: Buffer;
  readonly account: Buffer;
}

interface LoginRequest extends LoginAttempt {
  readonly keys: LoginKeys;
}

interface ReservationRow extends OrdinalRow {
  /** Null: may be evaluated. */
  readonly retry_after_seconds: number | null;
  readonly pair_expires_at: string;
  /** Null if the attempt was refused before the network was asked. */
  readonly network_expires_at: string | null;
  readonly account_position: number | null;
  readonly network_position: number | null;
  readonly is_new: boolean | null;
}

interface ClientFailureRow extends OrdinalRow {
  readonly position: number;
  readonly retry_after_seconds: number;
}

/** Builds the counters on the connections of logins, whose load they share. */
export function createFailureCounters(pool: LoginPool, options: LoginBounds): FailureCounters {
  const bounds = { ...options, isUndone: isStatementFailure };
  const reserve = createCoalescer<LoginRequest, ReservationRow>({
    ...bounds,
    send: (requests) => pool.run<ReservationRow>(reserveLoginStatement, loginValues(requests)),
  });
  const countClient = createCoalescer<Buffer, ClientFailureRow>({
    ...bounds,
    send: (keys) =>
      pool.run<ClientFailureRow>(countClientFailureStatement, [ordinalsOf(keys), keys]),
  });
  let nameKey: Promise<string> | undefined;
  const readNameKey = (): Promise<string> => {
    nameKey ??= pool
      .run<{ name_key: string }>(nameKeyStatement, [])
      .then(([row]) => (row as { name_key: string }).name_key)
      .catch((error) => {
        nameKey = undefined;
        throw error;
      });
    return nameKey;
  };
  /** The log has the event too, and nobody waits for either. */
  const record = (kind: string, clientId: string | null, subject: string | null, where: string) => {
    pool.run(recordGuessingStatement, [kind, clientId, subject, where]).catch(() => {});
  };
  const quietly = (work: Promise<unknown>): Promise<void> => work.then(ignore, ignore);

  return {
    async reserveLogin(attempt): Promise<LoginReservation> {
      const keys = loginKeys(attempt, await readNameKey());
      const row = await reserve({ ...attempt, keys });
      const { subject, network } = attempt;
      const released = () =>
        quietly(
          pool.run(releaseLoginStatement, [
            keys.pair,
            keys.network,
            keys.account,
            row.pair_expires_at,
            row.network_expires_at,
          ]),
        );
      if (row.retry_after_seconds !== null) {
        // Refused for the account's sake: whoever waits as told must not meet the network's own limit.
        if (row.account_position !== null) await released();
        return { outcome: 'refused', retryAfterSeconds: row.retry_after_seconds };
      }
      return {
        outcome: 'reserved',
        failed() {
          const isSpraying = row.is_new && row.network_position === MAXIMUM_NETWORK_FAILURES;
          if (isSpraying) record('password_spraying', null, null, network);
          // The limit of one network, reached by all of them together.
          const isGuessed = row.account_position === MAXIMUM_PAIR_FAILURES;
          if (isGuessed) record('password_guessing', attempt.clientId, subject ?? null, network);
          if (isGuessed) return 'password_guessing';
          return isSpraying ? 'password_spraying' : undefined;
        },
        succeeded: () =>
          quietly(
            pool.run(clearLoginStatement, [
              keys.pair,
              keys.network,
              keys.account,
              row.is_new ? row.network_expires_at : null,
              subject,
              neighbourhoodOf(network),
            ]),
          ),
        released,
      };
    },

    async countClientFailure({ presentedName, clientId, network }: FailedClientAuthentication) {
      const none: ClientFailures = { retryAfterSeconds: undefined, securityEvent: undefined };
      try {
        const bucket = bucketOf(presentedName ?? '', await readNameKey());
        const row = await countClient(keyOf(kinds.client, bucket, network));
        if (row.position < MAXIMUM_CLIENT_FAILURES) return none;
        const isLimit = row.position === MAXIMUM_CLIENT_FAILURES;
        if (isLimit) record('client_secret_guessing', clientId ?? null, null, network);
        return {
          securityEvent: isLimit ? 'client_secret_guessing' : undefined,
          retryAfterSeconds: isLimit ? undefined : row.retry_after_seconds,
        };
      } catch {
        return none;
      }
    },
  };
}

/** Where limits are switched off. */
export const uncounted: FailureCounters = {
  reserveLogin: async () => ({
    outcome: 'reserved',
    failed: () => undefined,
    succeeded: async () => {},
    released: async () => {},
  }),
  countClientFailure: async () => ({ retryAfterSeconds: undefined, securityEvent: undefined }),
};

const ignore = () => {};

/** First bytes of keys. Rows are locked in this order. */
const kinds = { pair: 1, network: 2, account: 3, client: 4 } as const;

/** 128 bits of a digest after the kind: an index that holds no name and no address. */
function keyOf(kind: number, ...parts: readonly string[]): Buffer {
  const hash = createHash('sha256').update(JSON.stringify(parts)).digest();
  return Buffer.concat([Buffer.of(kind), hash.subarray(0, 16)]);
}

/**
 * One of a million buckets, so that made-up names cannot fill the table. Which, nobody outside can work out:
 * a made-up name in the bucket of a real candidate would tell whether that one exists.
 */
const bucketOf = (name: string, nameKey: string): string =>
  createHash('sha256').update(`${nameKey} ${name}`).digest('hex').slice(0, 5);

function loginKeys({ subject, usernameDigest, network }: LoginAttempt, nameKey: string): LoginKeys {
  const account = subject ?? bucketOf(usernameDigest.toString('hex'), nameKey);
  return {
    pair: keyOf(kinds.pair, account, network),
    network: keyOf(kinds.network, network),
    account: keyOf(kinds.account, account),
  };
}

/** The /24 of an IPv4 address: providers move people within it. An IPv6 network is a /64 already. */
const neighbourhoodOf = (network: string): string =>
  /^\d+\.\d+\.\d+\.\d+$/.test(network) ? network.replace(/\d+$/, '0/24') : `${network}/64`;

/** The bind parameters of a batch: an array per column. */
const loginValues = (requests: readonly LoginRequest[]): unknown[] => [
  ordinalsOf(requests),
  requests.map(({ keys }) => keys.pair),
  requests.map(({ keys }) => keys.network),
  requests.map(({ keys }) => keys.account),
  requests.map(({ subject }) => subject ?? null),
  requests.map(({ network }) => neighbourhoodOf(network)),
];
