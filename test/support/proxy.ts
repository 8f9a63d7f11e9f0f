/** A TCP proxy in front of PostgreSQL, or another server, that a test can cut, as a network would. */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import type { Test } from 'tap';

export interface Proxy {
  /** The server's address through the proxy. */
  readonly url: string;
  /** Ends all connections and refuses new ones. */
  cut(): void;
  /** Lets connections through again. */
  restore(): void;
  /** Lets nothing more through on connections that are open now, which stay open. */
  silence(): void;
  /** Leads connections from now on to another server; those that are open stay. */
  redirect(otherUrl: string): void;
}

/** @param onBytes sees what goes through, in either direction */
export async function startProxy(
  t: Test,
  serverUrl: string,
  onBytes: (chunk: Buffer) => void = () => {},
): Promise<Proxy> {
  let target = new URL(serverUrl);
  const sockets = new Set<Socket>();
  let isCut = false;
  const proxy = createServer((client) => {
    if (isCut) {
      client.destroy();
      return;
    }
    const upstream = connect(Number(target.port), target.hostname);
    for (const [socket, other] of [
      [client, upstream],
      [upstream, client],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
      socket.on('data', onBytes);
      socket.pipe(other);
    }
  });
  await new Promise<void>((resolve) => proxy.listen(0, '127.0.0.1', resolve));
  const cut = () => {
    isCut = true;
    for (const socket of sockets) socket.destroy();
  };
  t.teardown(() => {
    cut();
    proxy.close();
  });
  const through = new URL(serverUrl);
  through.port = String((proxy.address() as AddressInfo).port);
  return {
    url: through.href,
    cut,
    restore: () => {
      isCut = false;
    },
    silence: () => {
      for (const socket of sockets) socket.unpipe().pause();
    },
    redirect: (otherUrl) => {
      target = new URL(otherUrl);
    },
  };
}
