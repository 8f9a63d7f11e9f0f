/** The attackers, in a thread of their own, so that the ordinary users' clocks are not theirs. */
import { randomBytes, randomInt } from 'node:crypto';
import { connect, type Socket } from 'node:net';
import { setPriority } from 'node:os';
import { setTimeout as delay } from 'node:timers/promises';
import { parentPort, workerData } from 'node:worker_threads';

export type AttackName = 'logins' | 'guesses' | 'slow' | 'trickle' | 'names' | 'resets';

export interface AttackOptions {
  readonly attack: AttackName;
  readonly url: string;
  readonly password: string;
}

/** How often each status was answered; 0 where there was no answer. */
export type Statuses = Record<number, number>;

export interface Outcome {
  readonly statuses: Statuses;
  readonly slowestMilliseconds: number;
}

/** Each goes on for at least this long, in rounds of its own size. */
const DURATION_MILLISECONDS = 5000;
/** Between rounds: the attackers share two cores with whom they attack, and with the clocks. */
const PAUSE_MILLISECONDS = 1000;

const { attack, url, password } = workerData as AttackOptions;
const { hostname, port } = new URL(url);
const statuses: Statuses = {};
let slowestMilliseconds = 0;

const note = (status: number): void => {
  statuses[status] = (statuses[status] ?? 0) + 1;
};

const anAddress = (): string => `198.${randomInt(18, 20)}.${randomInt(256)}.${randomInt(256)}`;

async function logIn(username: string, given: string, from: string): Promise<void> {
  const body = new URLSearchParams({
    grant_type: 'password',
    client_id: 'app',
    username,
    password: given,
  });
  const headers = { 'x-forwarded-for': from };
  const began = performance.now();
  const response = await fetch(`${url}/token`, { method: 'POST', body, headers }).catch(() => null);
  await response?.arrayBuffer();
  slowestMilliseconds = Math.max(slowestMilliseconds, performance.now() - began);
  note(response?.status ?? 0);
}

const times = <T>(count: number, work: (n: number) => T): T[] =>
  Array.from({ length: count }, (_, n) => work(n));

function open(octets: string): Socket {
  const socket = connect(Number(port), hostname, () => socket.write(octets));
  socket.on('error', () => {});
  return socket;
}

const head = (length: number): string =>
  `POST /token HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: ${anAddress()}\r\n` +
  `Content-Type: application/x-www-form-urlencoded\r\nContent-Length: ${length}\r\n\r\n`;

const rounds: Record<AttackName, () => Promise<unknown>> = {
  /** Everybody comes at once, half of them with a wrong password. */
  logins: () =>
    Promise.all(
      times(300, (n) => logIn(`person-${n}`, n % 2 ? password : 'a wrong one, alas', anAddress())),
    ),
  /** One account, one address. */
  guesses: () =>
    Promise.all(times(300, () => logIn('person-0', randomBytes(12).toString('hex'), '198.18.0.1'))),
  /** Headers that never end. */
  async slow() {
    const sockets = times(1000, () => open('POST /token HTTP/1.1\r\nHost: a\r\n'));
    for (let n = 0; n < 10; n++) {
      await delay(DURATION_MILLISECONDS / 10);
      for (const socket of sockets) if (!socket.destroyed) socket.write(`X-${n}: a\r\n`);
    }
    for (const socket of sockets) socket.destroy();
  },
  /** Bodies that come octet by octet. */
  async trickle() {
    const sockets = times(300, () => open(head(1000)));
    for (let n = 0; n < 50; n++) {
      await delay(DURATION_MILLISECONDS / 50);
      for (const socket of sockets) if (!socket.destroyed) socket.write('x');
    }
    for (const socket of sockets) socket.destroy();
  },
  /** Names that nobody has. */
  async names() {
    for (let n = 0; n < 6000; n += 60) {
      await Promise.all(
        times(60, () =>
          logIn(randomBytes(9).toString('hex'), 'a guess like any other', anAddress()),
        ),
      );
    }
  },
  /** Connections that are gone while their password waits or is being hashed: few enough to be let in. */
  async resets() {
    for (let group = 0; group < 5; group++) {
      const sockets = times(100, (n) => {
        const body = `grant_type=password&client_id=app&username=person-${n}&password=abandoned-${n}`;
        return open(head(body.length) + body);
      });
      await delay(200);
      for (const socket of sockets) socket.resetAndDestroy();
    }
  },
};

// Attackers bring computers of their own; here they get what the server and its users leave.
setPriority(0, 15);

const endsAt = performance.now() + DURATION_MILLISECONDS;
do {
  await rounds[attack]();
  await delay(PAUSE_MILLISECONDS);
} while (performance.now() < endsAt);
const outcome: Outcome = { statuses, slowestMilliseconds };
parentPort?.postMessage(outcome);
