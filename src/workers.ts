/** Several processes on one port: one per core, replaced when one dies, ended one after the other. */
import cluster, { type Worker } from 'node:cluster';
import { createLocalCounter, type RequestCount, type RequestCounter } from './request-counter.ts';
import { StartUpError } from './start-up-error.ts';

/** A worker that dies young would otherwise be replaced as fast as the machine can. */
const RESTART_DELAY_MILLISECONDS = 1000;

/** Tells a worker that its end will come, so that it sends those who ask elsewhere. */
const LEAVE_MESSAGE = 'leave';

/** Tells a worker to end when its requests are answered. */
export const STOP_MESSAGE = 'stop';

/** A request to count, from a worker to the process that all of them have in common. */
interface CountMessage {
  readonly count: {
    readonly id: number;
    readonly key: string;
    readonly windowMilliseconds: number;
  };
}

interface CountedMessage {
  readonly counted: RequestCount & { readonly id: number };
}

/** A primary that is busy is not waited for. */
const COUNT_DEADLINE_MILLISECONDS = 100;

export interface WorkersOptions {
  readonly count: number;
  /** Aborted when workers will end because they are to; a signal to the group reaches them, too. */
  readonly stopping: AbortSignal;
  /** Told about a worker that died and is replaced. */
  readonly onDeath: (processId: number | undefined) => void;
}

export interface Workers {
  /** The port on which all of them listen. */
  readonly port: number;
  /** Ends them one after the other, so that the others answer meanwhile. */
  stop(): Promise<void>;
}

/**
 * Starts the workers, which run the same program and find `cluster.isWorker`.
 *
 * @throws StartUpError if one of them ends before all of them listen; it has said why on standard error
 */
export async function startWorkers({ count, stopping, onDeath }: WorkersOptions): Promise<Workers> {
  let isStopping = false;
  const running = new Set<Worker>();
  const counter = createLocalCounter();

  const fork = (): Worker => {
    const worker = cluster.fork();
    running.add(worker);
    worker.on('message', async ({ count }: Partial<CountMessage>) => {
      if (count === undefined) return;
      const counted = await counter.increment(count.key, count.windowMilliseconds);
      const answer: CountedMessage = { counted: { id: count.id, ...counted } };
      tell(worker, answer);
    });
    worker.once('exit', () => {
      running.delete(worker);
      if (isStopping || stopping.aborted) return;
      onDeath(worker.process.pid);
      setTimeout(() => {
        if (!isStopping) fork();
      }, RESTART_DELAY_MILLISECONDS);
    });
    return worker;
  };

  // By a message, because a supervisor that signals the whole group has sent the signal already, and
  // a second one would end a worker at once. Who is gone by then is not in `running` any more.
  const stop = async (): Promise<void> => {
    isStopping = true;
    for (const worker of [...running]) {
      if (worker.isDead()) continue;
      const ended = new Promise((resolve) => worker.once('exit', resolve));
      tell(worker, STOP_MESSAGE);
      await ended;
    }
  };

  stopping.addEventListener('abort', () => {
    for (const worker of running) tell(worker, LEAVE_MESSAGE);
  });
  try {
    const [port] = await Promise.all(Array.from({ length: count }, () => listeningPort(fork())));
    return { port: port as number, stop };
  } catch (error) {
    await stop();
    throw error;
  }
}

/** Whoever dies meanwhile cannot be told, and is heard by its exit: unheard, the failure would end the primary. */
function tell(
  worker: Worker,
  message: CountedMessage | typeof LEAVE_MESSAGE | typeof STOP_MESSAGE,
): void {
  if (worker.isConnected()) worker.send(message, () => {});
}

const listeningPort = (worker: Worker): Promise<number> =>
  new Promise((resolve, reject) => {
    worker.once('listening', ({ port }) => resolve(port));
    worker.once('exit', () => reject(new StartUpError('A worker ended before it listened.')));
  });

/** In a worker: tells whether the primary is about to end, and its workers with it. */
export function watchPrimary(): () => boolean {
  let isLeaving = false;
  (cluster.worker as Worker).on('message', (message) => {
    if (message === LEAVE_MESSAGE) isLeaving = true;
  });
  return () => isLeaving;
}

/** In a worker: counts in the primary, for all workers together. */
export function countInPrimary(): RequestCounter {
  const worker = cluster.worker as Worker;
  const waiting = new Map<number, (count: RequestCount) => void>();
  let lastId = 0;
  worker.on('message', ({ counted }: Partial<CountedMessage>) => {
    if (counted !== undefined) waiting.get(counted.id)?.(counted);
  });
  return {
    increment: (key, windowMilliseconds) =>
      new Promise((resolve, reject) => {
        const id = ++lastId;
        const settle = () => {
          clearTimeout(timer);
          waiting.delete(id);
        };
        const timer = setTimeout(() => {
          settle();
          reject(new Error('the primary does not answer'));
        }, COUNT_DEADLINE_MILLISECONDS);
        waiting.set(id, (count) => {
          settle();
          resolve(count);
        });
        const message: CountMessage = { count: { id, key, windowMilliseconds } };
        worker.send(message);
      }),
  };
}
