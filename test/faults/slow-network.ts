/** A network between a server and PostgreSQL that takes its time, and neither loses nor reorders anything. */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Test } from 'tap';

export interface SlowNetwork {
  /** The database's URL through this network. */
  readonly url: string;
  /** How long what is sent from now on is under way, each way. What is under way already stays so. */
  delay(milliseconds: number): void;
}

export async function startSlowNetwork(t: Test, databaseUrl: string): Promise<SlowNetwork> {
  const upstream = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  const closing = new AbortController();
  let milliseconds = 0;
  const add = (socket: Socket) => {
    sockets.add(socket);
    socket.setNoDelay(true);
    socket.on('error', () => {});
    socket.on('close', () => sockets.delete(socket));
  };
  /** Passes on what one side sends, and at last that it has gone, in order and each after its time. */
  const carry = (from: Socket, to: Socket) => {
    let arrival = Promise.resolve();
    const arrive = (what: () => void) => {
      const travel =
        milliseconds > 0
          ? delay(milliseconds, undefined, { signal: closing.signal })
          : Promise.resolve();
      arrival = Promise.all([arrival, travel]).then(what, () => {});
    };
    from.on('data', (chunk) => arrive(() => to.write(chunk)));
    from.on('end', () => arrive(() => to.end()));
    from.on('close', () => arrive(() => to.destroySoon()));
  };
  const network = createServer({ allowHalfOpen: true }, (client) => {
    const server = connect({
      port: Number(upstream.port),
      host: upstream.hostname,
      allowHalfOpen: true,
    });
    for (const socket of [client, server]) add(socket);
    carry(client, server);
    carry(server, client);
  });
  network.listen(0, '127.0.0.1');
  await once(network, 'listening');
  t.teardown(() => {
    closing.abort();
    for (const socket of sockets) socket.destroy();
    network.close();
  });
  const url = new URL(databaseUrl);
  url.port = String((network.address() as AddressInfo).port);
  return {
    url: url.href,
    delay: (each) => {
      milliseconds = each;
    },
  };
}
