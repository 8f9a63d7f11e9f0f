/**
 * One keep-alive connection of the load generator.
 *
 * Ordinary clients cost as much as the servers that are measured, and all share the cores. This one
 * knows what the servers here answer with: a status line, a content-length and a short body.
 */
import { connect, type Socket } from 'node:net';

export type OnAnswer = (status: number, body: string) => void;

export interface Connection {
  /** Sends one whole request; the next one only after its answer. */
  send(request: string, onAnswer: OnAnswer): void;
  close(): void;
}

/** Reads are handled one at a time, so all connections share it. */
const received = Buffer.alloc(64 * 1024);

const contentLength = /\r\ncontent-length: *(\d+)/i;

/** @param onFailure told once when the connection breaks or an answer cannot be understood */
export function openConnection(
  port: number,
  onFailure: (error: Error) => void,
): Promise<Connection> {
  let pending = '';
  let onAnswer: OnAnswer | undefined;
  let isClosed = false;

  const read = (text: string): void => {
    pending += text;
    const headEnd = pending.indexOf('\r\n\r\n');
    if (headEnd === -1) return;
    const head = pending.slice(0, headEnd);
    const status = Number(head.slice(9, 12));
    const length = contentLength.exec(head)?.[1];
    if (length === undefined && status !== 204) {
      throw new Error(`answer without content-length: ${head}`);
    }
    const end = headEnd + 4 + Number(length ?? 0);
    if (pending.length < end) return;
    const body = pending.slice(headEnd + 4, end);
    if (pending.length > end) throw new Error(`more than one answer: ${pending}`);
    const answered = onAnswer;
    if (answered === undefined) throw new Error(`answer without a request: ${pending}`);
    pending = '';
    onAnswer = undefined;
    answered(status, body);
  };

  return new Promise((resolve, reject) => {
    const fail = (error: Error): void => {
      if (isClosed) return;
      isClosed = true;
      socket.destroy();
      reject(error);
      onFailure(error);
    };
    const socket: Socket = connect({
      host: '127.0.0.1',
      port,
      noDelay: true,
      onread: {
        buffer: received,
        callback(length) {
          try {
            read(received.toString('latin1', 0, length));
          } catch (error) {
            fail(error as Error);
          }
          return true;
        },
      },
    });
    socket.on('error', fail);
    socket.on('close', () => fail(new Error('the server closed a connection')));
    socket.on('connect', () =>
      resolve({
        send(request, callback) {
          onAnswer = callback;
          socket.write(request, 'latin1');
        },
        close() {
          isClosed = true;
          socket.destroy();
        },
      }),
    );
  });
}
