/** Arrays that hot statements send in binary arrive as they were given, nulls and all. */
import { isDeepStrictEqual } from 'node:util';
import fc from 'fast-check';
import t from 'tap';
import {
  boolArray,
  byteaArray,
  int4Array,
  textArray,
  tidArray,
  uuidArray,
} from '../../src/storage/binary-array.ts';
import { createTestDatabase } from '../support/database.ts';

const { inspect } = await createTestDatabase(t);

/** What PostgreSQL makes of a parameter, through the other format and node-postgres' own parsers. */
async function echo(type: string, array: Buffer): Promise<unknown> {
  const { rows } = await inspect.query(`select $1::${type}[] as echo`, [array]);
  return rows[0].echo;
}

function arrivesAsGiven<Value>(
  type: string,
  encode: (values: (Value | null)[]) => Buffer,
  values: fc.Arbitrary<Value>,
): Promise<void> {
  const arrays = fc.array(fc.option(values), { maxLength: 70 });
  return fc.assert(
    fc.asyncProperty(arrays, async (array) =>
      isDeepStrictEqual(await echo(type, encode(array)), array),
    ),
    { numRuns: 60 },
  );
}

t.test('int4', () => arrivesAsGiven('int4', int4Array, fc.integer()));
t.test('bool', () => arrivesAsGiven('bool', boolArray, fc.boolean()));
t.test('uuid', () => arrivesAsGiven('uuid', uuidArray, fc.uuid()));
t.test('text', async () => {
  const quoted = fc.constantFrom('', ' ', 'NULL', '{}', '{a,b}', '"', '\\', "'", ',', 'é€𝄞');
  await arrivesAsGiven('text', textArray, fc.oneof(quoted, fc.string({ unit: 'grapheme' })));
});
t.test('bytea', async () => {
  const octets = fc.uint8Array({ maxLength: 40 }).map((array) => Buffer.from(array));
  await arrivesAsGiven('bytea', byteaArray, octets);
});

t.test('tid', async () => {
  const blocks = fc.nat(2 ** 32 - 2);
  const items = fc.integer({ min: 1, max: 2 ** 16 - 1 });
  const places = fc.tuple(blocks, items).map(([block, item]) => `(${block},${item})`);
  const arrays = fc.array(fc.option(places), { maxLength: 70 });
  await fc.assert(
    fc.asyncProperty(arrays, async (array) => {
      const { rows } = await inspect.query('select $1::tid[]::text[] as echo', [tidArray(array)]);
      return isDeepStrictEqual(rows[0].echo, array);
    }),
    { numRuns: 60 },
  );
});

t.test('what a type cannot hold is refused as a mistake of the statement', async (t) => {
  await t.rejects(echo('text', textArray(['a\0b'])), { code: '22021' });
});

t.test('half a UUID is refused before it is sent', async (t) => {
  for (const text of ['', '01234567-89ab', 'not a uuid at all, but long enough!!']) {
    t.throws(() => uuidArray([text]), TypeError, text);
  }
});

t.test('what is no place is refused before it is sent', async (t) => {
  for (const text of ['', '(1)', '1,2', '(1,2', '(-1,2)', '(1,70000)', '(4294967296,1)']) {
    t.throws(() => tidArray([text]), text);
  }
});

t.test('an array of another type is refused', async (t) => {
  await t.rejects(echo('uuid', textArray(['a'])), { code: '42804' });
});
