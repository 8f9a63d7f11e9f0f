/** Clients that behave as RFC 6749 and the README ask, and write down every answer they get. */
import { setTimeout as delay } from 'node:timers/promises';
import { parseOpaqueToken } from '../../src/oauth/opaque-token.ts';
import { type Answer, basic, post } from '../support/client.ts';
import type { TestDatabase } from '../support/database.ts';
import { arrange, ask } from './support.ts';

export const PASSWORD = 'a phrase that only they know';

/** A confidential client, registered by `createLoadClient`. */
export interface LoadClient {
  readonly id: string;
  readonly secret: string;
}

/** Registers a client and, with one password, the people who log in through it. */
export async function createLoadClient(
  { url }: TestDatabase,
  people: readonly string[],
  settings: { clientId?: string; retryWindowSeconds?: number } = {},
): Promise<LoadClient> {
  return arrange(url, async ({ clients, resourceOwners }) => {
    for (const name of people) await resourceOwners.create(name, PASSWORD);
    const { client, clientSecret } = await clients.create({
      clientId: 'load',
      clientType: 'confidential',
      grantTypes: ['password', 'refresh_token'],
      scope: ['read', 'write'],
      introspectionRight: 'own',
      ...settings,
    });
    return { id: client.clientId, secret: clientSecret as string };
  });
}

/** Names of people; a person has at most 100 sessions, so load is spread over several. */
export const peopleNamed = (prefix: string, count: number): string[] =>
  Array.from({ length: count }, (_, index) => `${prefix}-${index}`);

/** An answer, or why there was none: a connection that was refused, reset or cut. */
export type Reply = (Answer | NoAnswer) & {
  /** From the request to its end. */
  readonly milliseconds: number;
};

interface NoAnswer {
  readonly status: 0;
  readonly reason: string;
}

const isAnswer = <Any extends Answer | NoAnswer>(reply: Any): reply is Any & Answer =>
  reply.status !== 0;

/** Where to send a request; undefined while no instance runs. */
export type Target = () => string | undefined;

/** Servers that keep their address, as targets. */
export const targetsOf = (servers: readonly { readonly url: string }[]): [Target, ...Target[]] =>
  servers.map(
    ({ url }): Target =>
      () =>
        url,
  ) as [Target, ...Target[]];

/** Sends one request once; waits only for an instance to send it to. */
export async function request(
  target: Target,
  path: '/token' | '/revoke' | '/introspect',
  client: LoadClient,
  parameters: Record<string, string>,
): Promise<Reply> {
  let url = target();
  while (url === undefined) {
    await pause();
    url = target();
  }
  const sentAt = performance.now();
  const outcome = await post(`${url}${path}`, parameters, basic(client.id, client.secret)).catch(
    (error: Error): NoAnswer => ({ status: 0, reason: String(error.cause ?? error) }),
  );
  return { ...outcome, milliseconds: performance.now() - sentAt };
}

export const login = (target: Target, client: LoadClient, username: string, password = PASSWORD) =>
  request(target, '/token', client, { grant_type: 'password', username, password });

export const refresh = (target: Target, client: LoadClient, refreshToken: string) =>
  request(target, '/token', client, { grant_type: 'refresh_token', refresh_token: refreshToken });

export const revoke = (target: Target, client: LoadClient, token: string) =>
  request(target, '/revoke', client, { token });

export const introspect = (target: Target, client: LoadClient, token: string) =>
  request(target, '/introspect', client, { token });

/**
 * What a reply means to a careful client. Only `verdict` may say anything about a token, and only a
 * 503 that says when to come back is proper trouble; the rest is `improper`.
 */
export type Meaning = 'granted' | 'verdict' | 'unavailable' | 'unanswered' | 'improper';

export function meaningOf(reply: Answer | NoAnswer): Meaning {
  if (!isAnswer(reply)) return 'unanswered';
  if (reply.status === 200) return 'granted';
  if (reply.status !== 503)
    return reply.status === 400 || reply.status === 401 ? 'verdict' : 'improper';
  const isProper =
    /^[1-9]\d*$/.test(reply.headers.get('retry-after') ?? '') &&
    reply.text === '{"error":"temporarily_unavailable"}';
  return isProper ? 'unavailable' : 'improper';
}

/** For messages; no body that is described carries a token. */
const describe = (reply: Reply): string =>
  isAnswer(reply) ? `${reply.status} ${reply.text}` : reply.reason;

/** All replies of a run by meaning, and what must not have happened. */
export class Ledger {
  readonly counts: Record<Meaning, number> = {
    granted: 0,
    verdict: 0,
    unavailable: 0,
    unanswered: 0,
    improper: 0,
  };
  /** When the last reply that was not an answer came, by `performance.now()`. */
  lastTroubleAt = 0;
  /** How long the slowest request took. */
  slowestMilliseconds = 0;
  readonly violations: string[] = [];

  note(reply: Reply): Meaning {
    const meaning = meaningOf(reply);
    this.counts[meaning]++;
    this.slowestMilliseconds = Math.max(this.slowestMilliseconds, reply.milliseconds);
    if (meaning === 'improper') {
      this.violations.push(`improper answer ${describe(reply)}`);
    }
    if (meaning !== 'granted' && meaning !== 'verdict') this.lastTroubleAt = performance.now();
    return meaning;
  }
}

/** Repeats a request until somebody answers it, as a client does that keeps its token. */
export async function insist(ledger: Ledger, send: () => Promise<Reply>): Promise<Answer> {
  for (;;) {
    const reply = await send();
    const meaning = ledger.note(reply);
    if (isAnswer(reply) && (meaning === 'granted' || meaning === 'verdict')) return reply;
    await pause();
  }
}

/** A little, and not in step with anybody else. */
export const pause = (): Promise<void> => delay(20 + Math.random() * 60);

export const familyOf = (token: string): string => parseOpaqueToken(token)?.familyId as string;

/** SHA-256 of the secret in a token, as the database stores it. */
export const digestOf = (token: string): Buffer => parseOpaqueToken(token)?.secretDigest as Buffer;

/** One holder of one family: always presents the newest refresh token it has, and retries the same one. */
export interface Holder {
  readonly client: LoadClient;
  readonly familyId: string;
  /** Every refresh token it was ever given, each once, oldest first. */
  readonly refreshTokens: string[];
  /** Every access token it was ever given, oldest first. */
  readonly accessTokens: string[];
  /** How often a rotation had been committed whose answer never came. */
  orphanedRotations: number;
  /** The last request's outcome is unknown to it. */
  isUncertain: boolean;
  /** Set when it was logged out, which ends it. */
  logout: string | undefined;
}

/** Logs in and holds what comes of it. */
export async function openFamily(
  ledger: Ledger,
  target: Target,
  client: LoadClient,
  username: string,
): Promise<Holder> {
  const { status, body } = await insist(ledger, () => login(target, client, username));
  if (status !== 200) throw new Error(`login of ${username} is refused: ${status}`);
  return {
    client,
    familyId: familyOf(body.refresh_token),
    refreshTokens: [body.refresh_token],
    accessTokens: [body.access_token],
    orphanedRotations: 0,
    isUncertain: false,
    logout: undefined,
  };
}

/** Logs in so many times, as these people in turn. */
export const openFamilies = (
  ledger: Ledger,
  target: Target,
  client: LoadClient,
  people: readonly string[],
  count: number,
): Promise<Holder[]> =>
  Promise.all(
    Array.from({ length: count }, (_, index) =>
      openFamily(ledger, target, client, people[index % people.length] as string),
    ),
  );

export const newest = (tokens: readonly string[]): string => tokens.at(-1) as string;

export interface RefreshOptions {
  /** How many identical requests go out at once, as tabs send them. */
  readonly copies?: number;
  /** Drops answers that arrive while it holds: the client's own connection is cut. */
  readonly isCut?: () => boolean;
}

/**
 * Refreshes once: sends the newest refresh token, and again after every failure, until an answer
 * comes. Uses the successor only when all copies have been answered or have failed.
 */
export async function refreshOnce(
  ledger: Ledger,
  database: TestDatabase,
  holder: Holder,
  target: Target,
  { copies = 1, isCut = () => false }: RefreshOptions = {},
): Promise<void> {
  const presented = newest(holder.refreshTokens);
  for (;;) {
    const sentAt = new Date();
    const sent = Array.from({ length: copies }, () => refresh(target, holder.client, presented));
    const replies = (await Promise.all(sent)).filter(() => !isCut());
    const answers = replies.filter((reply) => {
      const meaning = ledger.note(reply);
      return meaning === 'granted' || meaning === 'verdict';
    });
    const granted = answers.filter(isAnswer).filter(({ status }) => status === 200);
    const refused = answers.find(({ status }) => status !== 200);
    if (refused !== undefined) {
      holder.isUncertain = false;
      holder.logout = describe(refused);
      ledger.violations.push(`family ${holder.familyId} was logged out: ${holder.logout}`);
      return;
    }
    if (granted.length > 0) {
      const isRetry = holder.isUncertain;
      holder.isUncertain = false;
      accept(ledger, holder, granted);
      if (isRetry && (await wasRotatedBefore(database, holder, sentAt))) holder.orphanedRotations++;
      return;
    }
    holder.isUncertain = true;
    await pause();
    if (isCut()) return;
  }
}

/** Refreshes in a tight loop. Every fourth holder sends all twice, as two tabs or a resending proxy do. */
export async function keepRefreshing(
  ledger: Ledger,
  database: TestDatabase,
  holders: readonly Holder[],
  target: Target,
  isOver: () => boolean,
): Promise<void> {
  await Promise.all(
    holders.map(async (holder, index) => {
      const copies = index % 4 === 0 ? 2 : 1;
      while (!isOver() && holder.logout === undefined) {
        await refreshOnce(ledger, database, holder, target, { copies });
      }
    }),
  );
}

/** Holders that at some time had only the parent of a token that had been committed. */
export const orphanedOnce = (holders: readonly Holder[]): readonly Holder[] =>
  holders.filter(({ orphanedRotations }) => orphanedRotations > 0);

/** All copies must carry one successor, and it must be new. */
function accept(ledger: Ledger, holder: Holder, granted: readonly Answer[]): void {
  const successors = new Set(granted.map(({ body }) => body.refresh_token as string));
  const [successor] = successors;
  if (successors.size !== 1 || holder.refreshTokens.includes(successor as string)) {
    ledger.violations.push(
      `family ${holder.familyId} got ${successors.size} successors or an old one`,
    );
  }
  holder.refreshTokens.push(successor as string);
  for (const token of new Set(granted.map(({ body }) => body.access_token as string))) {
    holder.accessTokens.push(token);
  }
}

/**
 * Tells whether the successor just delivered had been made by an earlier request, so that its holder
 * had only the parent. Both clocks are this machine's.
 */
async function wasRotatedBefore(
  database: TestDatabase,
  { familyId }: Holder,
  sentAt: Date,
): Promise<boolean> {
  const [row] = await ask<{ was_before: boolean }>(
    database,
    'select rotated_at < $2 as was_before from token_family where id = $1',
    [familyId, sentAt],
  );
  return row?.was_before ?? false;
}
