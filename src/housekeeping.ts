/** What runs beside the requests: the service pulse and pruning. */
import { randomInt } from 'node:crypto';
import type { FastifyBaseLogger } from 'fastify';
import type { Dependencies } from './dependencies.ts';
import { databaseTroubleOf } from './storage/database.ts';
import { prune } from './storage/prune.ts';

/** Runs in which all families have been walked once: every hour. */
const WALK_PARTS = 60;

/** Starts the timers; the returned function stops them and waits for what is under way. */
export function startHousekeeping(
  { config, database, tokens }: Dependencies,
  log: FastifyBaseLogger,
): () => Promise<void> {
  let isStopping = false;
  // Anywhere, so that instances which are restarted often do not walk the same part for ever.
  let part = randomInt(WALK_PARTS);
  const pulse = repeat(config.pulseIntervalSeconds, () => tokens.recordPulse(), log);
  const pruning = repeat(
    config.pruneIntervalSeconds,
    async () => {
      const walk = { from: part / WALK_PARTS, to: (part + 1) / WALK_PARTS };
      part = (part + 1) % WALK_PARTS;
      const pruned = await prune(database, { isStopping: () => isStopping, walk });
      const isWorthALine = Object.values(pruned).some((rows) => rows > 0);
      if (isWorthALine) log.info({ event: 'pruned', ...pruned });
    },
    log,
  );
  return async () => {
    isStopping = true;
    await Promise.all([pulse(), pruning()]);
  };
}

/** Runs work again and again, never twice at once; a failure is logged and the next turn tries anew. */
function repeat(
  intervalSeconds: number,
  work: () => Promise<void>,
  log: FastifyBaseLogger,
): () => Promise<void> {
  let underWay: Promise<void> | undefined;
  const timer = setInterval(() => {
    underWay ??= work()
      .catch((error: Error) => {
        const detail = databaseTroubleOf(error) ?? error.message;
        log.error({ event: 'housekeeping_failed', detail });
      })
      .finally(() => {
        underWay = undefined;
      });
  }, intervalSeconds * 1000);
  timer.unref();
  return async () => {
    clearInterval(timer);
    await underWay;
  };
}
