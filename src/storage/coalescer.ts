/**
 * Coalescing: concurrent requests share round trips to the database, and nothing else.
 *
 * Whoever finds no statement in flight waits for nobody and is sent at once. Whatever else has arrived by
 * the end of the current turn of the event loop, or while the allowed number of statements is in flight,
 * goes as one statement.
 */
import { TemporarilyUnavailable } from '../oauth/errors.ts';

/** One row of an answer; `ordinal` says whose it is, because positions prove nothing. */
export interface OrdinalRow {
  readonly ordinal: number;
}

/** The ordinals of a batch, for statements that take them as a parameter. */
export const ordinalsOf = (requests: readonly unknown[]): number[] =>
  requests.map((_, position) => position + 1);

export interface CoalescerOptions<Request, Row extends OrdinalRow> {
  /** Sends one statement; the ordinal of a request is its position plus one. */
  readonly send: (requests: readonly Request[]) => Promise<readonly Row[]>;
  /** Most requests in one statement. */
  readonly maximumBatch: number;
  /** Most requests that wait; more are refused at once. */
  readonly maximumWaiting: number;
  /** Most statements at a time. */
  readonly maximumInFlight: number;
  /** Requests of the same key never share a statement; for writes, which would meet the same row. */
  readonly keyOf?: (request: Request) => string;
  /**
   * Tells whether a failure is one of the statement, so that the database has undone all of it and
   * members can be tried one by one. A lost connection is not: its outcome is unknown.
   */
  readonly isUndone: (error: unknown) => boolean;
}

interface Waiting<Request, Row> {
  readonly request: Request;
  readonly resolve: (row: Row) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * Builds a function that answers one request with its row.
 *
 * @throws TemporarilyUnavailable when too many wait, and when the answer lacks this request's ordinal or
 *   repeats it; whatever `send` throws otherwise
 */
export function createCoalescer<Request, Row extends OrdinalRow>(
  options: CoalescerOptions<Request, Row>,
): (request: Request) => Promise<Row> {
  const { maximumBatch, maximumWaiting, maximumInFlight, keyOf } = options;
  let waiting: Waiting<Request, Row>[] = [];
  let inFlight = 0;
  let isScheduled = false;

  const sendWaiting = (): void => {
    while (waiting.length > 0 && inFlight < maximumInFlight) {
      const batch = takeBatch();
      inFlight++;
      sendBatch(options, batch).finally(() => {
        inFlight--;
        schedule();
      });
    }
  };

  /** Sends after the sockets of this turn were read, so that their requests travel together. */
  const schedule = (): void => {
    if (isScheduled || waiting.length === 0 || inFlight >= maximumInFlight) return;
    isScheduled = true;
    setImmediate(() => {
      isScheduled = false;
      sendWaiting();
    });
  };

  /** The oldest requests, in order; of the same key only the first. */
  const takeBatch = (): Waiting<Request, Row>[] => {
    if (keyOf === undefined) return waiting.splice(0, maximumBatch);
    const batch: Waiting<Request, Row>[] = [];
    const passedOver: Waiting<Request, Row>[] = [];
    const keys = new Set<string>();
    let taken = 0;
    for (const each of waiting) {
      if (batch.length === maximumBatch) break;
      taken++;
      const key = keyOf(each.request);
      if (keys.has(key)) passedOver.push(each);
      else batch.push(each);
      keys.add(key);
    }
    waiting = [...passedOver, ...waiting.slice(taken)];
    return batch;
  };

  return (request) =>
    new Promise((resolve, reject) => {
      if (waiting.length >= maximumWaiting) {
        reject(new TemporarilyUnavailable('too many requests wait for the database'));
        return;
      }
      waiting.push({ request, resolve, reject });
      if (inFlight === 0 && !isScheduled) sendWaiting();
      else schedule();
    });
}

/** Sends a batch and settles every member; never rejects. */
async function sendBatch<Request, Row extends OrdinalRow>(
  options: CoalescerOptions<Request, Row>,
  batch: readonly Waiting<Request, Row>[],
): Promise<void> {
  try {
    settle(batch, await options.send(batch.map(({ request }) => request)));
  } catch (error) {
    if (batch.length > 1 && options.isUndone(error)) {
      // One bad request must not fail its neighbours.
      await Promise.all(batch.map((member) => sendBatch(options, [member])));
      return;
    }
    for (const { reject } of batch) reject(error);
  }
}

function settle<Request, Row extends OrdinalRow>(
  batch: readonly Waiting<Request, Row>[],
  rows: readonly Row[],
): void {
  const answers = new Map<number, Row | 'repeated'>();
  for (const row of rows) answers.set(row.ordinal, answers.has(row.ordinal) ? 'repeated' : row);
  batch.forEach(({ resolve, reject }, position) => {
    const answer = answers.get(position + 1);
    if (answer !== undefined && answer !== 'repeated') resolve(answer);
    else reject(new TemporarilyUnavailable('answer of the database does not fit the request'));
  });
}
