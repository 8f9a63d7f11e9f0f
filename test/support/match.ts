/** What tap lacks. */
import type { Test } from 'tap';

/** Matches a list element by element; `t.match` is content with one that begins as the pattern does. */
export const matchEach = (
  t: Test,
  list: readonly unknown[],
  patterns: readonly unknown[],
  name = 'each matches its pattern, and there are no more',
): unknown =>
  t.match({ list, length: list.length }, { list: patterns, length: patterns.length }, name);
