/** How columns of the named statements are read: as node-postgres does, but for JSON. */
import pg from 'pg';

type Parse<Value> = (text: string) => Value;

/** Type id of `json`, which never changes (pg_type.dat). */
const JSON_TYPE = 114;

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

const unchanged: Parse<string> = (text) => text;

/** For the `types` of a query. JSON stays text, for a reader who knows that many rows say the same. */
export const columnTypes = {
  getTypeParser: (type: number, format?: 'text' | 'binary') =>
    type === JSON_TYPE ? unchanged : pg.types.getTypeParser(type, format),
};
