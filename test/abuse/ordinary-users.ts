/** People and APIs that use the service as it is meant to be used, and notice how long it takes. */
import { setTimeout as delay } from 'node:timers/promises';
import { basic, post } from '../support/client.ts';

export interface Experience {
  /** Milliseconds of each request. */
  readonly introspections: number[];
  readonly refreshes: number[];
  /** Statuses other than 200. */
  readonly failures: number[];
}

export interface OrdinaryUsers {
  /** What they have met since the last time they were asked. */
  take(): Experience;
  stop(): Promise<void>;
}

export interface Scene {
  readonly url: string;
  readonly api: { readonly id: string; readonly secret: string };
  readonly username: string;
  readonly password: string;
}

/** A request every few milliseconds: enough for percentiles, far from what the server can do. */
const PAUSE_MILLISECONDS = 8;

/** Starts two APIs and two apps, which go on until they are stopped. */
export async function startOrdinaryUsers({ url, api, ...person }: Scene): Promise<OrdinaryUsers> {
  let experience: Experience = { introspections: [], refreshes: [], failures: [] };
  let isStopping = false;

  const timed = async (
    kind: 'introspections' | 'refreshes',
    ask: () => ReturnType<typeof post>,
  ) => {
    const began = performance.now();
    const answer = await ask();
    experience[kind].push(performance.now() - began);
    if (answer.status !== 200) experience.failures.push(answer.status);
    return answer.body;
  };
  const refreshing = async (address: string) => {
    const from = { 'x-forwarded-for': address };
    const login = { grant_type: 'password', client_id: 'app', ...person };
    let tokens = (await post(`${url}/token`, login, from)).body;
    while (!isStopping) {
      const refresh_token: string = tokens.refresh_token;
      const parameters = { grant_type: 'refresh_token', client_id: 'app', refresh_token };
      tokens = (await timed('refreshes', () => post(`${url}/token`, parameters, from))) ?? tokens;
      // Their client may refresh ten times a second.
      await delay(110);
    }
  };
  const introspecting = async (token: string) => {
    const credentials = basic(api.id, api.secret);
    while (!isStopping) {
      await timed('introspections', () => post(`${url}/introspect`, { token }, credentials));
      await delay(PAUSE_MILLISECONDS);
    }
  };
  const login = { grant_type: 'password', client_id: 'app', ...person };
  const { access_token: token } = (
    await post(`${url}/token`, login, { 'x-forwarded-for': '192.0.2.1' })
  ).body;
  const working = [
    introspecting(token),
    introspecting(token),
    ...Array.from({ length: 8 }, (_, n) => refreshing(`192.0.2.${10 + n}`)),
  ];
  return {
    take() {
      const taken = experience;
      experience = { introspections: [], refreshes: [], failures: [] };
      return taken;
    },
    async stop() {
      isStopping = true;
      await Promise.all(working);
    },
  };
}
