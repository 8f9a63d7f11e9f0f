/** The connection by which a process says that it uses the embedded server. */
import { constants } from 'node:fs';
import { open } from 'node:fs/promises';
import pg from 'pg';
import { StartUpError } from '../start-up-error.ts';
import {
  type Cluster,
  findPostmaster,
  loopback,
  NO_OPTIONS,
  superuser,
} from './embedded-cluster.ts';

const MAXIMUM_PASSWORD_BYTES = 100;

const presenceName = 'heirloom-presence';

/** A connection whose socket need not keep the event loop alive; `pg` has both, its types neither. */
export type PresenceClient = pg.Client & { ref(): void; unref(): void };

/** Reads the superuser's password; a presence needs it, and so does every other connection. */
export async function readPassword(cluster: Cluster): Promise<string> {
  // Root reads a file that the server's user could have replaced: no links, and nothing but a password.
  const file = await open(cluster.passwordPath, constants.O_RDONLY | constants.O_NOFOLLOW);
  try {
    const { size, nlink } = await file.stat();
    if (size === 0 || size > MAXIMUM_PASSWORD_BYTES || nlink !== 1) {
      throw new StartUpError(
        `${cluster.passwordPath} is not the password file that was written there.`,
      );
    }
    return await file.readFile('utf8');
  } finally {
    await file.close();
  }
}

/**
 * Connects as a presence. It looks at `postmaster.pid` first, because what listens on the port of a
 * server that has gone may be a trap that asks for the password in clear.
 *
 * @returns nothing while the server does not accept connections (yet, or any more)
 * @throws StartUpError if the password is wrong, which waiting does not mend
 */
export async function tryToConnect(cluster: Cluster): Promise<PresenceClient | undefined> {
  const postmaster = await findPostmaster(cluster);
  if (!postmaster?.isReady) return undefined;
  const client = new pg.Client({
    host: loopback,
    port: postmaster.port,
    user: superuser,
    password: await readPassword(cluster),
    database: 'postgres',
    ssl: false,
    sslnegotiation: 'postgres',
    options: NO_OPTIONS,
    application_name: presenceName,
    connectionTimeoutMillis: 5000,
    query_timeout: 10_000,
  });
  // Without a listener, a server that goes away would end the process.
  client.on('error', () => {});
  try {
    await client.connect();
    return client as PresenceClient;
  } catch (error) {
    await client.end();
    if (error instanceof pg.DatabaseError && error.code?.startsWith('28')) {
      throw new StartUpError(`PostgreSQL refuses the password in ${cluster.passwordPath}`);
    }
    return undefined;
  }
}

export interface Presence {
  /** Ends the watch and hands over the connection, if there is one at this moment. */
  leave(): PresenceClient | undefined;
}

/**
 * Holds a connection open, and opens it again when it was lost: PostgreSQL closes all of them when one
 * of its processes crashes, and somebody who leaves then must not think that nobody is left.
 */
export function keepPresence(
  firstClient: PresenceClient,
  connect: () => Promise<PresenceClient | undefined>,
): Presence {
  let held: PresenceClient | undefined;
  let isOver = false;
  const hold = (client: PresenceClient) => {
    held = client;
    client.unref();
    client.once('end', () => {
      held = undefined;
      reconnectSoon();
    });
  };
  const reconnectSoon = () => {
    if (!isOver) setTimeout(reconnect, 1000).unref();
  };
  const reconnect = async () => {
    const client = await connect().catch(() => undefined);
    if (client === undefined) reconnectSoon();
    else if (isOver) await client.end();
    else hold(client);
  };
  hold(firstClient);
  return {
    leave: () => {
      isOver = true;
      held?.ref();
      return held;
    },
  };
}

/** Asks who else is connected: another process of ours, only somebody else, or nobody. */
export async function findOthers(
  client: PresenceClient,
): Promise<'heirloom' | 'somebody' | 'nobody'> {
  const { rows } = await client.query<{ application_name: string }>(
    `select application_name from pg_stat_activity
      where backend_type = 'client backend' and pid <> pg_backend_pid()`,
  );
  if (rows.some((row) => row.application_name === presenceName)) return 'heirloom';
  return rows.length > 0 ? 'somebody' : 'nobody';
}
