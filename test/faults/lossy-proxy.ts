/** A proxy between clients and servers that loses requests and answers, or sends requests twice. */
import { once } from 'node:events';
import { createServer, type IncomingMessage, request, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import type { Test } from 'tap';
import type { Target } from './load.ts';

/** What becomes of a request. */
export type Fate =
  | 'answered'
  /** The server gets half of its body. */
  | 'cut in the request'
  /** The server has answered all of it, and the client gets nothing. */
  | 'cut before the answer'
  /** The client gets half of the answer's body. */
  | 'cut in the answer'
  /** Two servers get it, one a moment after the other; the client gets one of the answers. */
  | 'sent twice';

export interface LossyProxy {
  readonly url: string;
  /** Decides about each request from now on. */
  fate: () => Fate;
  /** Requests by what became of them. */
  readonly counts: ReadonlyMap<Fate, number>;
  /** The bodies of both answers to each request that was sent twice. */
  readonly twins: readonly (readonly [string, string])[];
}

interface Upstream {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly body: Buffer;
}

/** @param targets one after the other gets a request, and a copy goes to the next one */
export async function startLossyProxy(t: Test, targets: readonly Target[]): Promise<LossyProxy> {
  const counts = new Map<Fate, number>();
  const twins: (readonly [string, string])[] = [];
  let turn = 0;
  const server = createServer(async (client, answer) => {
    const body = await read(client);
    const fate = proxy.fate();
    counts.set(fate, (counts.get(fate) ?? 0) + 1);
    const next = () => `${targets[turn++ % targets.length]?.()}${client.url}`;
    try {
      if (fate === 'cut in the request') {
        await sendHalf(client, next(), body);
        client.socket.destroy();
        return;
      }
      if (fate === 'sent twice') {
        const later = async (url: string) => {
          await delay(Math.random() * 50);
          return forward(client, url, body);
        };
        const [first, second] = await Promise.all([forward(client, next(), body), later(next())]);
        twins.push([first.body.toString(), second.body.toString()]);
        pass(Math.random() < 0.5 ? first : second, answer);
        return;
      }
      const upstream = await forward(client, next(), body);
      if (fate === 'answered') pass(upstream, answer);
      if (fate === 'cut before the answer') client.socket.destroy();
      if (fate === 'cut in the answer') passHalf(upstream, answer);
    } catch {
      client.socket.destroy();
    }
  });
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  t.teardown(() => {
    server.close();
    server.closeAllConnections();
  });
  const { port } = server.address() as AddressInfo;
  const proxy: LossyProxy = {
    url: `http://127.0.0.1:${port}`,
    fate: () => 'answered',
    counts,
    twins,
  };
  return proxy;
}

async function read(message: IncomingMessage): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of message) chunks.push(chunk);
  return Buffer.concat(chunks);
}

async function forward(
  { method, headers }: IncomingMessage,
  url: string,
  body: Buffer,
): Promise<Upstream> {
  const sent = request(url, { method, headers });
  sent.end(body);
  const [answer] = (await once(sent, 'response')) as [IncomingMessage];
  return { status: answer.statusCode as number, headers: answer.headers, body: await read(answer) };
}

/** Sends the head and half of the body, and waits until that has left before it closes the connection. */
async function sendHalf(
  { method, headers }: IncomingMessage,
  url: string,
  body: Buffer,
): Promise<void> {
  const sent = request(url, { method, headers, agent: false });
  sent.on('error', () => {});
  await new Promise((resolve) => sent.write(body.subarray(0, body.length / 2), resolve));
  sent.destroy();
}

function pass({ status, headers, body }: Upstream, answer: ServerResponse): void {
  answer.writeHead(status, headers).end(body);
}

function passHalf({ status, headers, body }: Upstream, answer: ServerResponse): void {
  answer.writeHead(status, headers);
  answer.write(body.subarray(0, body.length / 2), () => answer.destroy());
}
