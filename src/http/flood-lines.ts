/** Log lines for what can come as often as somebody likes to send requests. */
import type { FastifyRequest } from 'fastify';
import { addressOf, pathOf } from './address.ts';

/** When a server last wrote such a line, and how many it has not written since. */
interface FloodLine {
  readonly at: number;
  unwritten: number;
}

/** By what they say, which is one of a few constants: an event and its detail. */
const floodLines = new WeakMap<object, Map<string, FloodLine>>();

/** Writes a line at most once a second: neither a flood nor an outage may fill the log at the requests' pace. */
export function noteFlood(
  request: FastifyRequest,
  level: 'warn' | 'error',
  line: {
    readonly event: 'rate_limited' | 'unavailable';
    readonly outcome?: 'refused';
    readonly clientId?: string | undefined;
    readonly detail?: string;
    readonly cause?: readonly string[];
  },
): void {
  const now = performance.now();
  const { server } = request.server;
  const lines = floodLines.get(server) ?? new Map<string, FloodLine>();
  floodLines.set(server, lines);
  const kind = `${line.event} ${line.detail}`;
  const last = lines.get(kind) ?? { at: Number.NEGATIVE_INFINITY, unwritten: 0 };
  if (now - last.at < 1000) {
    last.unwritten++;
    return;
  }
  lines.set(kind, { at: now, unwritten: 0 });
  const { unwritten } = last;
  request.log[level]({ ...line, address: addressOf(request), path: pathOf(request), unwritten });
}
