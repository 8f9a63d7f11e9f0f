/** What runs beside the requests: the service pulse and pruning. */
import type { FastifyBaseLogger } from 'fastify';
import type { Dependencies } from './dependencies.ts';
import { prune } from './storage/prune.ts';

/** Starts the timers; the returned function stops them and waits for what is under way. */
export function startHousekeeping(
  { config, database, tokens }: Dependencies,
  log: FastifyBaseLogger,
): () => Promise<void> {
  let isStopping = false;
  const pulse = repeat(config.pulseIntervalSeconds, () => tokens.recordPulse(), log);
  const pruning = repeat(
    config.pruneIntervalSeconds,
    async () => {
      const pruned = await prune(database, () => isStopping);
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
      .catch((error: Error) => log.error({ event: 'housekeeping_failed', detail: error.message }))
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
