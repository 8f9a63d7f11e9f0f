/**
 * Arrays as bind parameters in PostgreSQL's binary format, which node-postgres takes as a buffer.
 *
 * As text, an array is quoted element by element here and parsed character by character there; in the
 * hot statements that costs both sides more than anything else about a parameter.
 */

/** How elements of a type are written, as the type's receive function reads them. */
interface ElementType<Value> {
  /** Never changes (pg_type.dat). */
  readonly typeId: number;
  readonly sizeOf: (value: Value) => number;
  readonly write: (array: Buffer, value: Value, offset: number) => void;
}

/** `int4[]`. */
export const int4Array = encoderOf<number>({
  typeId: 23,
  sizeOf: () => 4,
  write: (array, value, offset) => array.writeInt32BE(value, offset),
});

/** `bool[]`. */
export const boolArray = encoderOf<boolean>({
  typeId: 16,
  sizeOf: () => 1,
  write: (array, value, offset) => array.writeUInt8(value ? 1 : 0, offset),
});

/** `text[]`. */
export const textArray = encoderOf<string>({
  typeId: 25,
  sizeOf: (value) => Buffer.byteLength(value),
  write: (array, value, offset) => array.write(value, offset),
});

/** `bytea[]`. */
export const byteaArray = encoderOf<Buffer>({
  typeId: 17,
  sizeOf: ({ length }) => length,
  write: (array, value, offset) => array.set(value, offset),
});

/** `uuid[]`, of UUIDs in their usual form. */
export const uuidArray = encoderOf<string>({
  typeId: 2950,
  sizeOf: () => 16,
  write: (array, value, offset) => {
    const written = array.write(value.replaceAll('-', ''), offset, 16, 'hex');
    // What is not written over holds what was in memory before.
    if (written !== 16) throw new TypeError('not a UUID');
  },
});

const PLACE = /^\((\d+),(\d+)\)$/;

/** `tid[]`, of places as PostgreSQL writes them: `(block,offset)`. */
export const tidArray = encoderOf<string>({
  typeId: 27,
  sizeOf: () => 6,
  write: (array, value, offset) => {
    const [, block, item] = PLACE.exec(value) ?? [];
    if (block === undefined || item === undefined) throw new TypeError('not a place');
    array.writeUInt16BE(Number(item), array.writeUInt32BE(Number(block), offset));
  },
});

/** Dimensions, whether there are nulls, element type; then length and lower bound of the only dimension. */
const HEADER_BYTES = 20;

/** What stands for the length of an element that is null. */
const NULL_LENGTH = -1;

function encoderOf<Value>({ typeId, sizeOf, write }: ElementType<Value>) {
  return (values: readonly (Value | null)[]): Buffer => {
    let size = HEADER_BYTES + 4 * values.length;
    let hasNulls = 0;
    for (const value of values) {
      if (value === null) hasNulls = 1;
      else size += sizeOf(value);
    }
    const array = Buffer.allocUnsafe(size);
    let offset = 0;
    for (const number of [1, hasNulls, typeId, values.length, 1]) {
      offset = array.writeInt32BE(number, offset);
    }
    for (const value of values) {
      const length = value === null ? NULL_LENGTH : sizeOf(value);
      offset = array.writeInt32BE(length, offset);
      if (value === null) continue;
      write(array, value, offset);
      offset += length;
    }
    return array;
  };
}
