/** Requests that fetch cannot make: octets out, answers in. */
import { connect } from 'node:net';
import type { Answer } from './client.ts';

/** Writes a request as it goes over the wire. The server closes the connection after its answer. */
export function request(
  startLine: string,
  headers: Readonly<Record<string, string>> = {},
  body = '',
): string {
  const lines = Object.entries({
    Host: 'heirloom.example',
    Connection: 'close',
    ...(body !== '' && { 'Content-Length': String(Buffer.byteLength(body)) }),
    ...headers,
  }).map(([name, value]) => `${name}: ${value}\r\n`);
  return `${startLine} HTTP/1.1\r\n${lines.join('')}\r\n${body}`;
}

/** Sends octets on a connection of their own and reads all answers until the server closes it. */
export function exchange(url: string, octets: string): Promise<Answer[]> {
  const { hostname, port } = new URL(url);
  return new Promise((resolve) => {
    const chunks: Buffer[] = [];
    const socket = connect(Number(port), hostname, () => socket.write(octets));
    socket.on('data', (chunk: Buffer) => chunks.push(chunk));
    // Whoever refuses a body unread resets the connection after the answer.
    socket.on('error', () => {});
    socket.on('close', () => resolve(parseAnswers(Buffer.concat(chunks))));
  });
}

/** Sends one request and expects one answer. */
export async function exchangeOne(url: string, octets: string): Promise<Answer> {
  const [answer, ...others] = await exchange(url, octets);
  if (answer === undefined || others.length > 0) {
    throw new Error(`${others.length + (answer ? 1 : 0)} answers to one request`);
  }
  return answer;
}

function parseAnswers(octets: Buffer): Answer[] {
  const answers: Answer[] = [];
  for (let start = 0; start < octets.length; ) {
    const end = octets.indexOf('\r\n\r\n', start);
    const [statusLine = '', ...lines] = octets.toString('latin1', start, end).split('\r\n');
    const headers = new Headers(lines.map((line) => line.split(/: ?(.*)/, 2) as [string, string]));
    start = end + 4 + Number(headers.get('content-length') ?? 0);
    const text = octets.toString('utf8', end + 4, start);
    answers.push({
      status: Number(statusLine.split(' ')[1]),
      headers,
      text,
      body: text.startsWith('{') ? JSON.parse(text) : undefined,
    });
  }
  return answers;
}
