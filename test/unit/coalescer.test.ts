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

t.test('a lone request goes at the end of the turn in which it came', async (t) => {
  const { sent, send, release } = controlled<string>();
  const ask = createCoalescer({ ...bounds, send });
  const answer = ask('a');
  t.strictSame(sent, [], 'not before the turn ends');
  await turn();
  t.strictSame(sent, [['a']]);
  release();
  t.strictSame(await answer, { ordinal: 1, request: 'a' });
});

t.test(
  'what comes in one turn travels together, and what comes meanwhile waits together',
  async (t) => {
    const { sent, send, release } = controlled<string>();
    const ask = createCoalescer({ ...bounds, send });
    const first = ['a', 'b'].map(ask);
    await turn();
    const second = ['c', 'd', 'e'].map(ask);
    await turn();
    t.strictSame(sent, [['a', 'b']], 'one statement at a time');
    release();
    await Promise.all(first);
    await turn();
    t.strictSame(sent[1], ['c', 'd', 'e']);
    release();
    t.match(await Promise.all(second), [{ request: 'c' }, { request: 'd' }, { request: 'e' }]);
  },
);

t.test('batches, statements in flight and the queue are bounded', async (t) => {
  const { sent, send, release } = controlled<number>();
  const ask = createCoalescer({
    ...bounds,
    send,
    maximumBatch: 2,
    maximumInFlight: 2,
    maximumWaiting: 3,
  });
  const answers = [1, 2, 3].map(ask);
  await t.rejects(ask(4), TemporarilyUnavailable, 'the queue is full');
  await turn();
  t.strictSame(sent, [[1, 2], [3]]);
  release();
  release();
  await Promise.all(answers);
});

t.test('two requests of one key never share a statement, and keep their order', async (t) => {
  const { sent, send, release } = controlled<string>();
  const ask = createCoalescer({ ...bounds, send, keyOf: (request) => request[0] as string });
  const answers = ['a1', 'b1', 'a2', 'a3', 'b2'].map(ask);
  for (let batch = 0; batch < 3; batch++) {
    await turn();
    release();
    await turn();
  }
  await Promise.all(answers);
  t.strictSame(sent, [['a1', 'b1'], ['a2', 'b2'], ['a3']]);
});

t.test('who was passed over goes first in the next statement', async (t) => {
  const { sent, send, release } = controlled<string>();
  const keyOf = (request: string) => request[0] as string;
  const ask = createCoalescer({ ...bounds, send, keyOf, maximumBatch: 2 });
  const answers = ['a1', 'a2', 'b1', 'c1', 'a3'].map(ask);
  for (let batch = 0; batch < 3; batch++) {
    await turn();
    release();
    await turn();
  }
  await Promise.all(answers);
  t.strictSame(sent, [['a1', 'b1'], ['a2', 'c1'], ['a3']]);
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
  const [a, poison, b] = await Promise.allSettled(['a', 'poison', 'b'].map(ask));
  t.match(a, { status: 'fulfilled', value: { request: 'a' } });
  t.match(b, { status: 'fulfilled', value: { request: 'b' } });
  t.ok(poison?.status === 'rejected' && poison.reason instanceof Undone);
  t.equal(statements, 4, 'once together, once each');
});

t.test('an unknown outcome is every member’s, and nothing is sent again', async (t) => {
  let statements = 0;
  const ask = createCoalescer({
    ...bounds,
    async send(): Promise<never> {
      statements++;
      throw new TemporarilyUnavailable('connection lost');
    },
  });
  const outcomes = await Promise.allSettled(['a', 'b'].map(ask));
  for (const outcome of outcomes) t.match(outcome, { reason: TemporarilyUnavailable });
  t.equal(statements, 1);
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
