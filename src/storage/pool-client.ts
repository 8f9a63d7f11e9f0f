/** The connections of a pool: whatever keeps one from being made fails whoever waits for it, and nobody else. */
import pg from 'pg';

/**
 * node-postgres's client, whose making never throws.
 *
 * It reads the files that a URL names, `sslrootcert` for one, when it is made. While requests wait, its pool
 * makes the next one where another connection has ended, and there a file that is being replaced, or a
 * machine that has no descriptor left for it, would end the process.
 */
export const PoolClient = new Proxy(pg.Client, {
  construct(Client, words: ConstructorParameters<typeof pg.Client>) {
    try {
      return new Client(...words);
    } catch (error) {
      return unmade(error);
    }
  },
});

function unmade(error: unknown): pg.Client {
  const connect = (callback: (error: unknown) => void) => setImmediate(callback, error);
  return Object.assign(new pg.Client({}), { connect });
}
