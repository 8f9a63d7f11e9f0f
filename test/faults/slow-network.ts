/** A network between a server and PostgreSQL that takes its time, and neither loses nor reorders anything. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Test } from 'tap';

export interface SlowNetwork {
  /** The database's URL through this network. */
  readonly url: string;
  /** Sets how long everything is under way from now on, each way; what is under way arrives at once. */
  delay(milliseconds: number): void;
}

export async function startSlowNetwork(t: Test, databaseUrl: string): Promise<SlowNetwork> {
  const upstream = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  let milliseconds = 0;
  let changing = new AbortController();
  const travel = (): Promise<void> =>
    milliseconds === 0
      ? Promise.resolve()
      : sleep(milliseconds, undefined, { signal: changing.signal }).catch(() => {});

  /** Passes on what one side sends, and at last that it has gone: PostgreSQL still runs what comes before that. */
  const carry = (from: Socket, to: Socket) => {
    let arrived = Promise.resolve();
    const send = (arrive: () => void) => {
      arrived = Promise.all([arrived, travel()]).then(arrive);
    };
    from.on('data', (chunk) => send(() => to.write(chunk)));
    from.on('close', () => send(() => to.destroySoon()));
  };
  const network = createServer((client) => {
    const server = connect(Number(upstream.port), upstream.hostname);
    for (const socket of [client, server]) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => {});
      socket.on('close', () => sockets.delete(socket));
    }
    carry(client, server);
    carry(server, client);
  });
  network.listen(0, '127.0.0.1');
  await once(network, 'listening');
  const delay = (each: number) => {
    milliseconds = each;
    changing.abort();
    changing = new AbortController();
  };
  t.teardown(() => {
    delay(0);
    for (const socket of sockets) socket.destroy();
    network.close();
  });
  const url = new URL(databaseUrl);
  url.port = String((network.address() as AddressInfo).port);
  return { url: url.href, delay };
}
