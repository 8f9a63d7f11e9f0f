/** Statements for single families whose rows somebody else may hold: waiting must not occupy the pool. */

import type { Database } from './database.ts';
import { lockFamilyStatement } from './hot-statements.ts';
import type { Statement } from './statement.ts';

/** Each occupies one of the pool's connections for as long as it waits. */
const MAXIMUM_FAMILIES_WAITED_FOR = 4;

/** Somebody else held the family's row, and may have changed it: it has to be read again. */
export interface NotLocked {
  readonly outcome: 'not_locked';
}

export interface RowQueue {
  /**
   * Runs a statement for one family that does not wait, but answers `not_locked`. It is then run once more,
   * as `wait` does.
   */
  run<Row extends { outcome: string }>(
    familyId: string,
    statement: Statement,
    values: readonly unknown[],
  ): Promise<Row | NotLocked | undefined>;
  /**
   * Works on a family whose row somebody else holds, waiting as long as the lock timeout allows.
   *
   * One request of a family waits and the others wait for it without a connection, or a single locked
   * row could occupy the pool; for the same reason only a few families are waited for.
   *
   * @param work is told the place of the row
   * @returns the first row of `work`; `not_locked` to whoever was not the one
   */
  wait<Row>(
    familyId: string,
    work: (run: Database['run'], place: string) => Promise<Row[]>,
  ): Promise<Row | NotLocked | undefined>;
}

export function createRowQueue(database: Database): RowQueue {
  const waitedFor = new Map<string, Promise<unknown>>();
  const queue: RowQueue = {
    async run<Row extends { outcome: string }>(
      familyId: string,
      statement: Statement,
      values: readonly unknown[],
    ) {
      // Without standing in line where nobody holds the row: requests are as many as somebody likes to send.
      const [row] = await database.run<Row | NotLocked>(statement, values);
      if (row?.outcome !== 'not_locked') return row;
      return queue.wait(familyId, (run) => run<Row>(statement, values));
    },

    async wait<Row>(
      familyId: string,
      work: (run: Database['run'], place: string) => Promise<Row[]>,
    ) {
      const ahead = waitedFor.get(familyId);
      if (ahead !== undefined || waitedFor.size >= MAXIMUM_FAMILIES_WAITED_FOR) {
        // Without a connection: for one's own family, or for the first of the others to be done.
        await (ahead ?? Promise.race([...waitedFor.values()].map(settled)));
        return { outcome: 'not_locked' };
      }
      const rows = database.transaction(async (run) => {
        const [locked] = await run<{ place: string }>(lockFamilyStatement, [familyId]);
        return locked === undefined ? [] : work(run, locked.place);
      });
      waitedFor.set(familyId, rows);
      try {
        return (await rows)[0];
      } finally {
        waitedFor.delete(familyId);
      }
    },
  };
  return queue;
}

/** What happens to another family's request is that request's affair. */
const settled = (work: Promise<unknown>): Promise<unknown> => work.catch(() => {});
