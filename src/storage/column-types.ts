/** How columns of the hot statements are read: as node-postgres does, but faster where it shows. */
import pg from 'pg';

type Parse<Value> = (text: string) => Value;

/** Type ids that never change (pg_type.dat). */
const JSON_TYPE = 114;
const TEXT_ARRAY = 1009;

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

const parsers = new Map<number, Parse<unknown>>([
  // Left as text for whoever knows what is in it, and that rows of one answer say the same.
  [JSON_TYPE, (text) => text],
  [TEXT_ARRAY, remembering(parserOf(TEXT_ARRAY))],
]);

/** For the `types` of a query. */
export const columnTypes = {
  getTypeParser: (type: number, format?: 'text' | 'binary') =>
    (format === 'binary' ? undefined : parsers.get(type)) ?? pg.types.getTypeParser(type, format),
};
