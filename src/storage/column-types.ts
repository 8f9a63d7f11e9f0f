/** How columns of the hot statements are read: as node-postgres does, but faster where it shows. */
import pg from 'pg';

type Parse<Value> = (text: string) => Value;

/** Type ids that never change (pg_type.dat). */
const TIMESTAMPTZ = 1184;
const TEXT_ARRAY = 1009;
const BYTEA_ARRAY = 1001;

/** Values of a column that repeats itself: clients and scopes are few, requests are many. */
const MAXIMUM_REMEMBERED = 1000;

/** Remembers what texts were parsed to; their readers share the value and must not change it. */
export function remembering<Value>(parse: Parse<Value>): Parse<Value> {
  const remembered = new Map<string, Value>();
  return (text) => {
    const known = remembered.get(text);
    if (known !== undefined) return known;
    const value = parse(text);
    if (remembered.size === MAXIMUM_REMEMBERED) remembered.clear();
    remembered.set(text, value);
    return value;
  };
}

const parserOf = (type: number): Parse<unknown> => pg.types.getTypeParser(type);

/** Connections speak UTC, so that nearly all instants are `2026-11-20 12:34:56.789012+00`. */
function parseInstant(text: string): unknown {
  const isOrdinary = text.endsWith('+00') && text.charAt(10) === ' ';
  return isOrdinary
    ? new Date(`${text.slice(0, 10)}T${text.slice(11, -3)}Z`)
    : parserOf(TIMESTAMPTZ)(text);
}

const parsers = new Map<number, Parse<unknown>>([
  [TIMESTAMPTZ, parseInstant],
  [TEXT_ARRAY, remembering(parserOf(TEXT_ARRAY))],
  [BYTEA_ARRAY, remembering(parserOf(BYTEA_ARRAY))],
]);

/** For the `types` of a query. */
export const columnTypes = {
  getTypeParser: (type: number, format?: 'text' | 'binary') =>
    (format === 'binary' ? undefined : parsers.get(type)) ?? pg.types.getTypeParser(type, format),
};
