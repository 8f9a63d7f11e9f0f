/** The same for axios, which is known here by its shape only. */
import { isOtherLogin } from './access-token.ts';
import {
  type ApiAccess,
  createRefusals,
  createRenewals,
  unlessAborted,
} from './authorized-fetch.ts';
import { SignedOutError, UnavailableError } from './errors.ts';

/** What the interceptor touches of a request's configuration. */
interface AxiosRequest {
  readonly headers: { set(name: string, value: string): unknown; get(name: string): unknown };
  readonly data?: unknown;
  readonly signal?: AbortSignal;
  /** In milliseconds; 0 is none. */
  readonly timeout?: number;
  /** What sends a request: a function, or names that axios knows. */
  adapter?: unknown;
}

interface AxiosResponse {
  readonly status: number;
  config: AxiosRequest;
}

/* biome-ignore-start lint/suspicious/noExplicitAny: only so does an instance of every version fit */
/** As much of an axios instance as the interceptor needs. */
export interface AxiosLike {
  readonly interceptors: { readonly request: { use(onFulfilled: (request: any) => any): unknown } };
  getUri(request: any): string;
  create(): { request(request: any): Promise<any> };
}
/* biome-ignore-end lint/suspicious/noExplicitAny: only so does an instance of every version fit */

type Adapter = (request: AxiosRequest) => Promise<AxiosResponse>;

/**
 * Adds the token to requests of this instance, and repeats them once with a new one after a 401.
 *
 * It repeats where axios sends, so that the app's interceptors and transformations see one request and
 * one answer.
 */
export function attachToAxios(axios: AxiosLike, access: ApiAccess): void {
  const { session, isApi } = access;
  const refusals = createRefusals();
  const renewForNext = createRenewals(access);
  /** Has no interceptors. */
  const sender = axios.create();
  /** Ours to that of the app, which may repeat a request with the configuration that it got back. */
  const adapters = new WeakMap<object, unknown>();
  const urlOf = (request: AxiosRequest) => new URL(axios.getUri(request), baseUrl()).href;
  const tokenIn = ({ headers }: AxiosRequest) => String(headers.get('authorization')).slice(7);

  const attempt = async (request: AxiosRequest, adapter: unknown) => {
    const bare = { ...request, adapter, transformRequest: [], transformResponse: [] };
    try {
      const response: AxiosResponse = await sender.request(bare);
      response.config = request;
      return { response, settle: () => response };
    } catch (error) {
      const { response } = Object.assign(error as { response?: AxiosResponse }, {
        config: request,
      });
      if (response !== undefined) response.config = request;
      const settle = () => {
        throw error;
      };
      return { response, settle };
    }
  };

  const repeating = (adapter: unknown): Adapter => {
    const ours: Adapter = async (request) => {
      const url = urlOf(request);
      const refused = tokenIn(request);
      const first = await attempt(request, adapter);
      // An interceptor of the app may have led the request elsewhere since it got its token.
      const isRefused = first.response?.status === 401 && isApi(url);
      if (!isRefused || refusals.isHopeless(url, refused)) return first.settle();
      if (!isRepeatable(request.data)) {
        await renewForNext(url, refused, (next) => inTime(next, request));
        return first.settle();
      }
      const another = await inTime(session.replace(refused), request);
      if (another !== undefined) request.headers.set('authorization', `Bearer ${another}`);
      const second = await attempt(request, adapter);
      if (second.response?.status === 401) refusals.note(url, tokenIn(request));
      return second.settle();
    };
    adapters.set(ours, adapter);
    return ours;
  };

  axios.interceptors.request.use(async (request: AxiosRequest) => {
    if (!isApi(urlOf(request))) return request;
    const token = await inTime(session.current(), request);
    if (token === undefined) return request;
    // Whoever repeats a request, this client or the app, repeats it for the person who made it.
    if (isOtherLogin(tokenIn(request), token)) throw new SignedOutError();
    request.headers.set('authorization', `Bearer ${token}`);
    const { adapter } = request;
    const isOurs = typeof adapter === 'function' && adapters.has(adapter);
    request.adapter = repeating(isOurs ? adapters.get(adapter) : adapter);
    return request;
  });
}

/**
 * Waits for a token as long as the caller does. Undefined for one that has aborted: axios itself rejects
 * its request before sending it.
 *
 * @throws UnavailableError when `timeout` is over, which is also the limit of the request after it
 */
async function inTime(
  token: Promise<string>,
  { signal, timeout }: AxiosRequest,
): Promise<string | undefined> {
  const milliseconds = Math.trunc(Number(timeout));
  const deadline = milliseconds > 0 ? AbortSignal.timeout(milliseconds) : undefined;
  const timed = deadline === undefined ? token : unlessAborted(token, deadline);
  try {
    return await (signal === undefined ? timed : unlessAborted(timed, signal));
  } catch (error) {
    if (signal?.aborted) return undefined;
    if (deadline?.aborted) throw new UnavailableError({ cause: error });
    throw error;
  }
}

/** What a browser resolves a relative URL by: a page's `<base>` may name another host than its own. */
function baseUrl(): string | undefined {
  const { document, location } = globalThis as {
    document?: { baseURI: string };
    location?: { href: string };
  };
  return document?.baseURI ?? location?.href;
}

/** A stream is empty after it was sent. */
const isRepeatable = (data: unknown): boolean =>
  !(data instanceof ReadableStream) && typeof (data as { pipe?: unknown })?.pipe !== 'function';
