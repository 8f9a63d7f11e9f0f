/** Queries that wait for their answer for a limited time. */
import type { Client, ClientBase } from 'pg';

type Query = (...words: unknown[]) => unknown;

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
  const startTimer = () =>
    setTimeout(() => {
      (client as Client).end();
    }, seconds * 1000);
  const queryInTime: Query = (...words) => {
    const callback = words.at(-1);
    if (typeof callback !== 'function') {
      const answer = query(...words) as Promise<unknown>;
      const timer = startTimer();
      return answer.finally(() => clearTimeout(timer));
    }
    const answered: Query = (...outcome) => {
      clearTimeout(timer);
      callback(...outcome);
    };
    query(...words.slice(0, -1), answered);
    const timer = startTimer();
    return undefined;
  };
  Object.assign(client, { query: queryInTime });
}
