/** `fetch` with an access token, for the APIs that may have it. */
import type { Session } from './session.ts';

export interface ApiAccess {
  readonly session: Pick<Session, 'current' | 'replace'>;
  /** Tells whether a token may go there. */
  readonly isApi: (url: string) => boolean;
}

/**
 * Notes which APIs refuse even a token that was issued a moment ago: their 401 has another reason, and
 * a new token for each of their answers would be a storm.
 */
export function createRefusals() {
  const refused = new Map<string, string>();
  return {
    isHopeless: (url: string, token: string) => refused.get(new URL(url).origin) === token,
    note: (url: string, token: string) => void refused.set(new URL(url).origin, token),
  };
}

/**
 * Renews a token for the sake of the next request, after a 401 to one that cannot be sent again; not when
 * that next one was refused, too. Trouble is told by whoever asks for a token then.
 */
export function createRenewals({ session }: ApiAccess) {
  const refusals = createRefusals();
  return async (
    url: string,
    refused: string,
    wait: (token: Promise<string>) => Promise<string | undefined>,
  ): Promise<void> => {
    if (refusals.isHopeless(url, refused)) return;
    const another = await wait(session.replace(refused)).catch(() => undefined);
    if (another !== undefined) refusals.note(url, another);
  };
}

/**
 * Builds the function. A 401 is answered once by a new token and the same request again, if its body
 * can be sent again. Requests to anywhere else pass through without a token.
 *
 * @see RFC 6750 §2.1, §5.3
 */
export function authorizedFetch(
  access: ApiAccess,
  fetch: typeof globalThis.fetch,
): typeof globalThis.fetch {
  const { session, isApi } = access;
  const refusals = createRefusals();
  const renewForNext = createRenewals(access);
  return async (input, init) => {
    const request = new Request(input, init);
    const signal = init?.signal ?? request.signal;
    const send = (each: Request) => fetch(each, withSignal(each, signal));
    if (!isApi(request.url)) return send(request);
    const spare = init?.body instanceof ReadableStream ? undefined : request.clone();
    const token = await unlessAborted(session.current(), signal);
    const response = await send(withToken(request, token));
    if (response.status !== 401 || refusals.isHopeless(request.url, token)) return response;
    if (spare === undefined) {
      await renewForNext(request.url, token, (next) => unlessAborted(next, signal));
      return response;
    }
    await response.body?.cancel();
    const another = await unlessAborted(session.replace(token), signal);
    const repeated = await send(withToken(spare, another));
    if (repeated.status === 401) refusals.note(request.url, another);
    return repeated;
  };
}

function withToken(request: Request, token: string): Request {
  request.headers.set('authorization', `Bearer ${token}`);
  return request;
}

/**
 * The caller's own signal goes along: Node loses one that only a `Request` follows when it collects that
 * request. What else is named here would be reset by a second argument (Fetch §5.4).
 */
const withSignal = ({ referrer, referrerPolicy }: Request, signal: AbortSignal): RequestInit => ({
  signal,
  referrer,
  referrerPolicy,
});

/** A caller that has gone does not wait; what it waited for goes on, for the others. */
export function unlessAborted<T>(promise: Promise<T>, signal: AbortSignal): Promise<T> {
  return new Promise((resolve, reject) => {
    const leave = () => reject(signal.reason);
    if (signal.aborted) leave();
    signal.addEventListener('abort', leave);
    // One signal may serve all requests of a page.
    const forget = () => signal.removeEventListener('abort', leave);
    promise.then(resolve, reject).finally(forget);
  });
}
