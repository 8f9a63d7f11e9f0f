import fc from 'fast-check';
import t from 'tap';
import type { LookUpRequest } from '../../src/oauth/ports.ts';
import { remembering } from '../../src/storage/column-types.ts';
import { type LookUpRow, lookUpsFromRows, lookUpValues } from '../../src/storage/look-up-rows.ts';

const defaults = {
  accessTokenLifetimeSeconds: 900,
  refreshTokenIdleLifetimeSeconds: 604_800,
  refreshTokenLifetimeSeconds: 2_592_000,
  retryWindowSeconds: 60,
};

const askedBy = (clientId: string | undefined): LookUpRequest => ({ clientId, token: undefined });

/** Elements of a `text[]` in PostgreSQL's binary format. */
function elementsOf(array: Buffer): (string | null)[] {
  const elements: (string | null)[] = [];
  for (let offset = 20; offset < array.length; ) {
    const length = array.readInt32BE(offset);
    offset += 4;
    elements.push(length === -1 ? null : array.toString('utf8', offset, offset + length));
    offset += Math.max(length, 0);
  }
  return elements;
}

/** The clients that a batch asks for, request by request. */
const readBy = (requests: readonly LookUpRequest[]) =>
  elementsOf(lookUpValues(requests)[0] as Buffer);

/** Answers a batch as the database does: a client for whoever named one, and nothing else. */
const answer = (requests: readonly LookUpRequest[]): LookUpRow[] =>
  readBy(requests).map((clientId, position) => ({
    ordinal: position + 1,
    instants: '[0,0,null,null]',
    caller:
      clientId &&
      JSON.stringify([
        1,
        clientId,
        'public',
        [],
        [],
        'none',
        [],
        [],
        'body',
        ...Array(5).fill(null),
      ]),
    family: null,
    lineage: null,
    access_token: null,
  }));

const callers = (requests: readonly LookUpRequest[], rows: readonly LookUpRow[]) =>
  lookUpsFromRows(requests, rows, defaults).map(
    ({ ordinal, lookUp }) => [ordinal, lookUp.client?.clientId] as const,
  );

t.test('a client is read once in a batch, and known to all its requests', async (t) => {
  const requests = ['a', 'b', 'a', undefined, 'a'].map(askedBy);
  const rows = answer(requests);
  t.strictSame(readBy(requests), ['a', 'b', null, null, null]);
  t.strictSame(callers(requests, rows), [
    [1, 'a'],
    [2, 'b'],
    [3, 'a'],
    [4, undefined],
    [5, 'a'],
  ]);
});

t.test('whoever depends on a row that is missing or repeated gets no answer', async (t) => {
  const requests = ['a', 'b', 'a'].map(askedBy);
  const [first, second, third] = answer(requests) as [LookUpRow, LookUpRow, LookUpRow];
  t.strictSame(callers(requests, [second, third]), [[2, 'b']]);
  t.strictSame(callers(requests, [first, first, first, second, third]), [[2, 'b']]);
});

t.test('nobody is ever given the client of another', async () => {
  const clientIds = fc.option(fc.constantFrom('a', 'b', 'c'), { nil: undefined });
  fc.assert(
    fc.property(
      fc.array(clientIds, { minLength: 1, maxLength: 20 }),
      fc.array(fc.nat(30), { maxLength: 40 }),
      (named, picks) => {
        const requests = named.map(askedBy);
        const rows = answer(requests);
        // Rows get lost, come twice, in another order, or for ordinals that nobody has.
        const mangled = picks.flatMap((pick) => rows[pick] ?? { ...rows[0], ordinal: 100 + pick });
        return callers(requests, mangled as LookUpRow[]).every(
          ([ordinal, clientId]) => clientId === named[ordinal - 1],
        );
      },
    ),
    { numRuns: 500 },
  );
});

t.test('what is remembered is bounded, and parsed again when it was forgotten', async (t) => {
  let parsed = 0;
  const parse = remembering((text) => {
    parsed += 1;
    return [text];
  });
  t.equal(parse('a'), parse('a'));
  t.equal(parsed, 1);
  for (let text = 0; text < 1000; text += 1) parse(String(text));
  t.strictSame(parse('a'), ['a']);
  t.equal(parsed, 1002);
});

t.test('a lineage is read from bytes of the right length, and from no others', (t) => {
  const digests = [1, 2, 3, 4].map((value) => Buffer.alloc(32, value));
  const lineageOf = (bytes: Buffer, isRotated: boolean) => {
    const family = ['f', 1, 'a', null, 'read', [], 0, 1, 1, null, null, false];
    const instants = isRotated ? [1000, 2000] : [null, null];
    const lineage = [`\\x${bytes.toString('hex')}`, 1, ...instants, '(7,5)'];
    const row = {
      ordinal: 1,
      instants: '[0,0,null,null]',
      caller: null,
      family: JSON.stringify(family),
      lineage: JSON.stringify(lineage),
      access_token: null,
    };
    return lookUpsFromRows([askedBy(undefined)], [row], defaults)[0]?.lookUp.family?.lineage;
  };
  const [lineageDigest, currentDigest, previousDigest, successorSalt] = digests;
  const read = { lineageDigest, currentDigest, generation: 1, place: '(7,5)' };
  t.strictSame(lineageOf(Buffer.concat(digests.slice(0, 2)), false), {
    ...read,
    rotation: undefined,
  });
  t.strictSame(lineageOf(Buffer.concat(digests), true), {
    ...read,
    rotation: {
      previousDigest,
      successorSalt,
      rotatedAt: new Date(1000),
      retryUntil: new Date(2000),
    },
  });
  for (const length of [0, 32, 63, 65, 96, 127, 129, 160]) {
    const bytes = Buffer.concat(digests, length);
    t.equal(lineageOf(bytes, true), undefined, `${length} bytes after a rotation`);
    t.equal(lineageOf(bytes, false), undefined, `${length} bytes before one`);
  }
  t.equal(lineageOf(Buffer.concat(digests, 64), true), undefined);
  t.equal(lineageOf(Buffer.concat(digests), false), undefined);
  t.end();
});
