/** Answers what never becomes a request: HTTP that Node cannot read, and CONNECT. */
import { STATUS_CODES } from 'node:http';
import type { Socket } from 'node:net';

/** Answers what Node refuses before there is a request that Fastify could answer. */
export function answerMalformedHttp(
  error: Error & { code?: string },
  socket: Socket,
  headers: Readonly<Record<string, string>>,
): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return;
  writeFailure(socket, malformedHttpStatus[error.code ?? ''] ?? 400, headers);
}

const malformedHttpStatus: Readonly<Record<string, number>> = {
  HPE_HEADER_OVERFLOW: 431,
  HPE_CHUNK_EXTENSIONS_OVERFLOW: 413,
  ERR_HTTP_REQUEST_TIMEOUT: 408,
};

/** Writes a failure by hand and closes the connection. */
export function writeFailure(
  socket: Socket,
  status: number,
  headers: Readonly<Record<string, string>>,
): void {
  // Node may have taken its own listener off by now, and an unheard error would end the process.
  socket.on('error', () => {});
  const body = JSON.stringify({ error: status === 501 ? 'not_implemented' : 'invalid_request' });
  const lines = Object.entries({
    date: new Date().toUTCString(),
    ...headers,
    connection: 'close',
    'content-type': 'application/json; charset=utf-8',
    'content-length': body.length,
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  if (socket.writable) {
    socket.write(`HTTP/1.1 ${status} ${STATUS_CODES[status]}\r\n${lines.join('')}\r\n${body}`);
  }
  socket.destroySoon();
}
