/** Queries that wait for their answer for a limited time. */
import type { ClientBase, Connection } from 'pg';

type Query = (...words: unknown[]) => unknown;

/** What node-postgres has and its types leave out. */
interface Connected {
  readonly connection: Connection;
}

/**
 * Ends a connection when one of its queries, by callback or promise, has no answer in time; the query
 * then fails as on any lost connection. For a silent network: a server that answers gives up by itself.
 *
 * node-postgres has such a deadline of its own, `query_timeout`, and assigns a function to a property for
 * it. V8 allocates such functions in the old generation, where each keeps its query, values and rows from
 * being collected young; under load that is a twelfth of the server's CPU.
 */
export function setQueryDeadline(client: ClientBase, seconds: number): void {
  const query = client.query.bind(client) as Query;
  // Not `end`, which waits for the server where one query was refused and the next has not been sent.
  const giveUp = () => {
    const { stream } = (client as unknown as Connected).connection;
    stream.destroy(new Error(`no answer within ${seconds} s`));
  };
  const queryInTime: Query = (...words) => {
    // Before the query, which calls back at once when its values cannot be written.
    const timer = setTimeout(giveUp, seconds * 1000);
    const callback = words.at(-1);
    const answered: Query = (...outcome) => {
      clearTimeout(timer);
      (callback as Query)(...outcome);
    };
    try {
      if (typeof callback === 'function') return query(...words.slice(0, -1), answered);
      const answer = query(...words);
      if (answer instanceof Promise) return answer.finally(() => clearTimeout(timer));
      clearTimeout(timer);
      return answer;
    } catch (error) {
      clearTimeout(timer);
      throw error;
    }
  };
  Object.assign(client, { query: queryInTime });
}
