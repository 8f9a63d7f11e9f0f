import fc from 'fast-check';
import t from 'tap';
import { TemporarilyUnavailable } from '../../src/oauth/errors.ts';
import { createCoalescer } from '../../src/storage/coalescer.ts';

class Undone extends Error {}
const bounds = {
  maximumBatch: 64,
  maximumWaiting: 1000,
  maximumInFlight: 1,
  isUndone: (error: unknown) => error instanceof Undone,
};

/** Answers every request with itself, after being told to. */
function controlled<Request>() {
  const sent: Request[][] = [];
  const releases: (() => void)[] = [];
  const send = async (requests: readonly Request[]) => {
    sent.push([...requests]);
    await new Promise<void>((resolve) => releases.push(resolve));
    return requests.map((request, position) => ({ ordinal: position + 1, request }));
  };
  return { sent, send, release: () => releases.shift()?.() };
}

const turn = () => new Promise<void>((resolve) => setImmediate(resolve));

/** Lets one statement end and the next one go. */
async function endOne(release: () => void): Promise<void> {
  await turn();
  release();
  await turn();
  await turn();
}

t.test('a lone request goes at once', async (t) => {
  const { sent, send, release } = controlled<string>();
  const ask = createCoalescer({ ...bounds, send });
  const answer = ask('a');
  t.strictSame(sent, [['a']]);
  release();
  t.strictSame(await answer, { ordinal: 1, request: 'a' });
});

t.test('those who come after it in the same turn travel together at its end', async (t) => {
  const { sent, send, release } = controlled<string>();
  const ask = createCoalescer({ ...bounds, send, maximumInFlight: 2 });
  const answers = ['a', 'b', 'c'].map(ask);
  t.strictSame(sent, [['a']]);
  await turn();
  t.strictSame(sent, [['a'], ['b', 'c']]);
  release();
  release();
  t.match(await Promise.all(answers), [{ request: 'a' }, { request: 'b' }, { request: 'c' }]);
});

t.test('what comes while no more statements are allowed waits together', async (t) => {
  const { sent, send, release } = controlled<string>();
  const ask = createCoalescer({ ...bounds, send });
  const first = ask('a');
  const second = ['b', 'c'].map(ask);
  await turn();
  const third = ['d', 'e'].map(ask);
  await turn();
  t.strictSame(sent, [['a']], 'one statement at a time');
  await endOne(release);
  t.match(await first, { request: 'a' });
  t.strictSame(sent[1], ['b', 'c', 'd', 'e']);
  release();
  t.match(await Promise.all([...second, ...third]), [
    { request: 'b' },
    { request: 'c' },
    { request: 'd' },
    { request: 'e' },
  ]);
});

t.test('batches, statements in flight and the queue are bounded', async (t) => {
  const { sent, send, release } = controlled<number>();
  const ask = createCoalescer({
    ...bounds,
    send,
    maximumBatch: 2,
    maximumInFlight: 2,
    maximumWaiting: 3,
  });
  const answers = [1, 2, 3, 4].map(ask);
  await t.rejects(ask(5), TemporarilyUnavailable, 'the queue is full');
  await turn();
  t.strictSame(sent, [[1], [2, 3]]);
  await endOne(release);
  t.strictSame(sent, [[1], [2, 3], [4]]);
  release();
  release();
  await Promise.all(answers);
});

/** What is sent, one statement at a time, of requests that find another one under way. */
async function sentOf(requests: readonly string[], maximumBatch: number): Promise<string[][]> {
  const { sent, send, release } = controlled<string>();
  const keyOf = (request: string) => request[0] as string;
  const ask = createCoalescer({ ...bounds, send, keyOf, maximumBatch });
  const answers = ['x', ...requests].map(ask);
  for (const _ of answers) await endOne(release);
  await Promise.all(answers);
  return sent.slice(1);
}

t.test('two requests of one key never share a statement, and keep their order', async (t) => {
  t.strictSame(await sentOf(['a1', 'b1', 'a2', 'a3', 'b2'], 64), [
    ['a1', 'b1'],
    ['a2', 'b2'],
    ['a3'],
  ]);
});

t.test('who was passed over goes first in the next statement', async (t) => {
  t.strictSame(await sentOf(['a1', 'a2', 'b1', 'c1', 'a3'], 2), [
    ['a1', 'b1'],
    ['a2', 'c1'],
    ['a3'],
  ]);
});

t.test('a poisoned member fails alone', async (t) => {
  let statements = 0;
  const ask = createCoalescer({
    ...bounds,
    async send(requests: readonly string[]) {
      statements++;
      if (requests.includes('poison')) throw new Undone();
      return requests.map((request, position) => ({ ordinal: position + 1, request }));
    },
  });
  const [, a, poison, b] = await Promise.allSettled(['first', 'a', 'poison', 'b'].map(ask));
  t.match(a, { status: 'fulfilled', value: { request: 'a' } });
  t.match(b, { status: 'fulfilled', value: { request: 'b' } });
  t.ok(poison?.status === 'rejected' && poison.reason instanceof Undone);
  t.equal(statements, 5, 'one before them, once together, once each');
});

t.test('an unknown outcome is every member’s, and nothing is sent again', async (t) => {
  const sent: string[] = [];
  const ask = createCoalescer({
    ...bounds,
    async send(requests: readonly string[]): Promise<never> {
      sent.push(...requests);
      throw new TemporarilyUnavailable('connection lost');
    },
  });
  const outcomes = await Promise.allSettled(['a', 'b', 'c'].map(ask));
  for (const outcome of outcomes) t.match(outcome, { reason: TemporarilyUnavailable });
  t.strictSame(sent, ['a', 'b', 'c']);
});

t.test('nobody ever gets an answer that was meant for somebody else', async (t) => {
  /** What a hostile database does with a batch. */
  const behaviour = fc.constantFrom(
    'honest',
    'shuffled',
    'drops',
    'repeats',
    'foreign',
    'undone',
    'lost',
  );
  const run = fc.record({
    turns: fc.array(fc.array(fc.nat({ max: 9 }), { maxLength: 8 }), { maxLength: 6 }),
    behaviours: fc.array(behaviour, { minLength: 1, maxLength: 6 }),
    maximumBatch: fc.integer({ min: 1, max: 5 }),
    maximumInFlight: fc.integer({ min: 1, max: 3 }),
    isKeyed: fc.boolean(),
  });
  await fc.assert(
    fc.asyncProperty(run, async ({ turns, behaviours, maximumBatch, maximumInFlight, isKeyed }) => {
      let statements = 0;
      type Request = { id: number; key: number };
      const ask = createCoalescer({
        ...bounds,
        maximumBatch,
        maximumInFlight,
        ...(isKeyed && { keyOf: ({ key }: Request) => String(key) }),
        async send(requests: readonly Request[]) {
          const mode = behaviours[statements++ % behaviours.length];
          if (requests.length > maximumBatch) throw new Error('batch too large');
          if (isKeyed && new Set(requests.map(({ key }) => key)).size < requests.length) {
            throw new Error('two of a key');
          }
          await new Promise((resolve) => setImmediate(resolve));
          if (mode === 'undone') throw new Undone();
          if (mode === 'lost') throw new TemporarilyUnavailable('lost');
          const rows = requests.map(({ id }, position) => ({ ordinal: position + 1, id }));
          if (mode === 'shuffled') rows.reverse();
          if (mode === 'drops') rows.pop();
          if (mode === 'repeats' && rows[0]) rows.push({ ordinal: 1, id: -1 });
          if (mode === 'foreign') rows.push({ ordinal: requests.length + 1, id: -1 });
          return rows;
        },
      });
      let id = 0;
      const asked: Promise<boolean>[] = [];
      for (const keys of turns) {
        for (const key of keys) {
          const request = { id: id++, key };
          asked.push(
            ask(request).then(
              (row) => row.id === request.id,
              (error) => error instanceof TemporarilyUnavailable || error instanceof Undone,
            ),
          );
        }
        await turn();
      }
      return (await Promise.all(asked)).every(Boolean);
    }),
    { numRuns: 300 },
  );
  t.pass();
});
