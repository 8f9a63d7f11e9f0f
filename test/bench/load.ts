/** Drives workloads over keep-alive connections and times every answer. */
import { type Connection, openConnection } from './http-connection.ts';
import type { Workload } from './workloads.ts';

export interface Load {
  readonly workload: Workload;
  readonly connections: number;
}

export interface LoadResult {
  /** Answers inside the measured time, and how long that was. */
  readonly answers: number;
  readonly seconds: number;
  /** All answers, those of the warm-up too. */
  readonly allAnswers: number;
  readonly p50Milliseconds: number;
  readonly p99Milliseconds: number;
}

export interface LoadOptions {
  readonly port: number;
  readonly warmUpSeconds: number;
  readonly seconds: number;
}

/** For answers that are still on their way when the time is over; who needs longer hangs. */
const PATIENCE_SECONDS = 30;

/** One in so many answers is compared as a whole; the others by status and by a mark in the body. */
const SAMPLED = 101;

/**
 * Runs all loads at the same time: each connection asks, waits for the answer and asks again.
 *
 * @throws Error at the first wrong answer or broken connection, and when answers do not come at all
 */
export async function runLoads(
  loads: readonly Load[],
  { port, warmUpSeconds, seconds }: LoadOptions,
): Promise<LoadResult[]> {
  let reportFailure: (error: Error) => void = () => {};
  const failure = new Promise<never>((_resolve, reject) => {
    reportFailure = reject;
  });
  // Nobody waits for it while connections are opened; whoever opens them is told as well.
  failure.catch(() => {});
  const timer = setTimeout(
    () => reportFailure(new Error(`no answer for ${PATIENCE_SECONDS} s`)),
    (warmUpSeconds + seconds + PATIENCE_SECONDS) * 1000,
  );
  const opened: Connection[] = [];
  const connect = async (): Promise<Connection> => {
    const connection = await openConnection(port, reportFailure);
    opened.push(connection);
    return connection;
  };
  try {
    const connected = await Promise.all(
      loads.map(async ({ workload, connections }) => ({
        workload,
        connections: await Promise.all(Array.from({ length: connections }, connect)),
      })),
    );
    const from = performance.now() + warmUpSeconds * 1000;
    const window = { from, until: from + seconds * 1000 };
    const runs = connected.map((load) => runLoad(load.workload, load.connections, window));
    return await Promise.race([Promise.all(runs), failure]);
  } finally {
    clearTimeout(timer);
    for (const connection of opened) connection.close();
  }
}

interface Window {
  readonly from: number;
  readonly until: number;
}

async function runLoad(
  workload: Workload,
  connections: readonly Connection[],
  { from, until }: Window,
): Promise<LoadResult> {
  const warmUpLatencies: number[] = [];
  const latencies: number[] = [];
  const startedAt = performance.now();
  let isExhausted = false;
  let allAnswers = 0;
  let lastAnswerAt = startedAt;
  await Promise.all(
    connections.map(
      (connection) =>
        new Promise<void>((resolve, reject) => {
          const ask = (): void => {
            const askedAt = performance.now();
            const order = askedAt < until ? workload.next() : undefined;
            if (order === undefined) {
              isExhausted ||= askedAt < until;
              resolve();
              return;
            }
            connection.send(order.request, (status, body) => {
              const now = performance.now();
              const isSampled = allAnswers++ % SAMPLED === 0;
              if (!workload.isRight(order, status, body, isSampled)) {
                reject(new Error(`wrong answer: ${status} ${body}\nto ${order.request}`));
                return;
              }
              lastAnswerAt = now;
              if (now < from) warmUpLatencies.push(now - askedAt);
              else if (now < until) latencies.push(now - askedAt);
              ask();
            });
          };
          ask();
        }),
    ),
  );
  // A workload that ran out of orders, as revocation does in a small database, counts as a whole.
  return isExhausted
    ? summary([...warmUpLatencies, ...latencies], allAnswers, (lastAnswerAt - startedAt) / 1000)
    : summary(latencies, allAnswers, (until - from) / 1000);
}

function summary(latencies: readonly number[], allAnswers: number, seconds: number): LoadResult {
  const sorted = Float64Array.from(latencies).sort();
  const percentile = (share: number): number =>
    sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? Number.NaN;
  return {
    answers: sorted.length,
    seconds,
    allAnswers,
    p50Milliseconds: percentile(0.5),
    p99Milliseconds: percentile(0.99),
  };
}
