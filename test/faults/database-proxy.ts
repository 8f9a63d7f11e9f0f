/**
 * A proxy between a server and PostgreSQL that understands enough of the protocol to cut a connection
 * at a chosen statement: before PostgreSQL sees it, or after it has committed and answered.
 *
 * Messages are a type byte, a length and a body; only the first one of a client has no type. A
 * prepared statement is named in `Bind`; `Parse` carries the name only the first time.
 */
import { once } from 'node:events';
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import type { Test } from 'tap';

/** Where to cut: the statement does not arrive, or its answer does not come back. */
export type Cut = 'before' | 'after';

export interface DatabaseProxy {
  /** The database's URL through this proxy. */
  readonly url: string;
  /**
   * Cuts the connection that runs this statement next; a name, or the text of a simple query.
   *
   * @returns when it has been cut: after `ReadyForQuery` for `after`, so the commit is done
   */
  cut(cut: Cut, statement: string): Promise<void>;
  /** Waits until the answer to the next run of this statement has been passed on. */
  answered(statement: string): Promise<void>;
}

interface Wish {
  readonly kind: Cut | 'watch';
  readonly statement: string;
  readonly done: () => void;
}

export async function startDatabaseProxy(t: Test, databaseUrl: string): Promise<DatabaseProxy> {
  const upstream = new URL(databaseUrl);
  const wishes: Wish[] = [];
  const sockets = new Set<Socket>();
  const takeWish = (statement: string): Wish | undefined => {
    const index = wishes.findIndex((wish) => wish.statement === statement);
    return index < 0 ? undefined : wishes.splice(index, 1)[0];
  };
  const proxy = createServer((client) => {
    const server = connect(Number(upstream.port), upstream.hostname);
    for (const socket of [client, server]) {
      sockets.add(socket);
      socket.setNoDelay(true);
      socket.on('error', () => {});
      socket.on('close', () => sockets.delete(socket));
    }
    relay(client, server, takeWish);
  });
  proxy.listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  t.teardown(() => {
    for (const socket of sockets) socket.destroy();
    proxy.close();
  });
  const url = new URL(databaseUrl);
  url.port = String((proxy.address() as AddressInfo).port);
  const wish = (kind: Wish['kind'], statement: string) =>
    new Promise<void>((done) => wishes.push({ kind, statement, done }));
  return { url: url.href, cut: wish, answered: (statement) => wish('watch', statement) };
}

const READY_FOR_QUERY = 'Z';

/** Passes messages both ways, whole ones only, until a wish says otherwise. */
function relay(
  client: Socket,
  server: Socket,
  takeWish: (statement: string) => Wish | undefined,
): void {
  let pending: Wish | undefined;
  const cut = (wish: Wish) => {
    client.destroy();
    server.destroy();
    wish.done();
  };
  const fromClient = splitter({ hasStartUp: true });
  client.on('data', (chunk: Buffer) => {
    const passed: Buffer[] = [];
    for (const message of fromClient(chunk)) {
      pending = takeWish(statementOf(message) ?? '') ?? pending;
      if (pending?.kind === 'before') return cut(pending);
      passed.push(message);
    }
    server.write(Buffer.concat(passed));
  });
  const fromServer = splitter({ hasStartUp: false });
  server.on('data', (chunk: Buffer) => {
    for (const message of fromServer(chunk)) {
      const isReady = String.fromCharCode(message[0] as number) === READY_FOR_QUERY;
      if (pending?.kind === 'after') {
        // Nothing of the answer is passed on, and the connection goes once PostgreSQL is done.
        if (isReady) return cut(pending);
        continue;
      }
      client.write(message);
      if (isReady) {
        pending?.done();
        pending = undefined;
      }
    }
  });
  client.on('close', () => server.destroy());
  server.on('close', () => client.destroy());
}

/** Collects bytes and gives out whole messages. */
function splitter({ hasStartUp }: { hasStartUp: boolean }): (chunk: Buffer) => Buffer[] {
  let rest = Buffer.alloc(0);
  let isStartUp = hasStartUp;
  return (chunk) => {
    rest = Buffer.concat([rest, chunk]);
    const messages: Buffer[] = [];
    for (;;) {
      const typeBytes = isStartUp ? 0 : 1;
      if (rest.length < typeBytes + 4) return messages;
      const length = typeBytes + rest.readUInt32BE(typeBytes);
      if (rest.length < length) return messages;
      messages.push(rest.subarray(0, length));
      rest = rest.subarray(length);
      isStartUp = false;
    }
  };
}

/** The name of the statement that is run: the second string of `Bind`, or the text of a simple `Query`. */
function statementOf(message: Buffer): string | undefined {
  const type = String.fromCharCode(message[0] as number);
  const strings = message.toString('latin1', 5).split('\0', 2);
  if (type === 'B') return strings[1];
  return type === 'Q' ? strings[0] : undefined;
}
