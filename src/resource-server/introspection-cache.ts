/** Remembers introspections for a moment, for APIs that trade instant revocation for fewer questions. */
import { createHash } from 'node:crypto';
import { LRUCache } from 'lru-cache';
import type { IntrospectionAnswer } from './introspection-request.ts';

export interface IntrospectionCacheOptions {
  /** How long an answer is believed: a revoked token is accepted for up to that long. */
  readonly maximumAgeSeconds: number;
  /** How many tokens are remembered; the one unused for longest is forgotten first. Default 10,000. */
  readonly maximumEntries?: number;
}

interface Question {
  readonly askedAt: number;
  readonly answer: Promise<IntrospectionAnswer>;
}

type Ask = (token: string) => Promise<IntrospectionAnswer>;

/**
 * Puts a cache in front of `ask`. Only active tokens are remembered, never beyond their `exp`, and never
 * trouble. Requests that show the same token at the same time share one question.
 */
export function cached(ask: Ask, options: IntrospectionCacheOptions): Ask {
  const { maximumAgeSeconds, maximumEntries = 10_000 } = options;
  const maximumAge = Math.floor(maximumAgeSeconds * 1000);
  if (!(maximumAge > 0 && Number.isFinite(maximumAge))) {
    throw new TypeError('maximumAgeSeconds must be a number of at least 0.001');
  }
  // 0 would mean no limit to the cache.
  if (!(Number.isInteger(maximumEntries) && maximumEntries > 0)) {
    throw new TypeError('maximumEntries must be an integer of at least 1');
  }
  const answers = new LRUCache<string, IntrospectionAnswer>({
    max: maximumEntries,
    ttl: maximumAge,
  });
  const asking = new Map<string, Question>();

  const askAndRemember = async (
    key: string,
    token: string,
    askedAt: number,
  ): Promise<IntrospectionAnswer> => {
    const answer = await ask(token);
    const lifeMilliseconds = Math.min(maximumAge, millisecondsLeft(answer));
    // What was decided when the question was asked is as old as the question.
    const ttl = Math.floor(lifeMilliseconds - (performance.now() - askedAt));
    if (ttl > 0) answers.set(key, answer, { ttl });
    return answer;
  };

  return (token) => {
    // A heap dump of the API should not be a list of tokens.
    const key = createHash('sha256').update(token).digest('base64url');
    const remembered = answers.get(key);
    // The clock of the cache stands still while a machine is suspended, and a token grows old.
    if (remembered !== undefined && millisecondsLeft(remembered) > 0) {
      return Promise.resolve(remembered);
    }
    const askedAt = performance.now();
    const shared = asking.get(key);
    // Its answer is as old as the question, too.
    if (shared !== undefined && askedAt - shared.askedAt < maximumAge) return shared.answer;
    const question = { askedAt, answer: askAndRemember(key, token, askedAt) };
    asking.set(key, question);
    return question.answer.finally(() => {
      if (asking.get(key) === question) asking.delete(key);
    });
  };
}

/**
 * Until `exp`, by the later of this machine's clock and the authorization server's, which is cut to
 * whole seconds in its `Date` (RFC 9110 §6.6.1).
 */
function millisecondsLeft(answer: IntrospectionAnswer): number {
  if (answer.outcome !== 'answered' || !answer.claims.active) return 0;
  const { exp } = answer.claims;
  if (exp === undefined) return Number.POSITIVE_INFINITY;
  const serverNow = answer.answeredAt === undefined ? 0 : answer.answeredAt.getTime() + 1000;
  return Number(exp) * 1000 - Math.max(Date.now(), serverNow);
}
