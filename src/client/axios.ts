/** The same for axios, which is known here by its shape only. */
import { isOtherLogin } from './access-token.ts';
import { type ApiAccess, createRefusals, unlessAborted } from './authorized-fetch.ts';
import { SignedOutError, UnavailableError } from './errors.ts';

/** What the interceptor touches of a request's configuration. */
interface AxiosRequest {
  readonly headers: { set(name: string, value: string): unknown; get(name: string): unknown };
  readonly data?: unknown;
  readonly signal?: AbortSignal;
  /** In milliseconds; 0 is none. */
  readonly timeout?: number;
  /** Ours: keeps its place when axios copies a configuration, which a symbol would not. */
  isRepeatedWithNewToken?: boolean;
}

interface AxiosResponse {
  readonly status: number;
  readonly config: AxiosRequest;
}

/* biome-ignore-start lint/suspicious/noExplicitAny: only so does an instance of every version fit */
/** As much of an axios instance as the interceptor needs. */
export interface AxiosLike {
  readonly interceptors: {
    readonly request: { use(onFulfilled: (request: any) => any): unknown };
    readonly response: {
      use(onFulfilled: (response: any) => any, onRejected: (error: any) => any): unknown;
    };
  };
  getUri(request: any): string;
  request(request: any): Promise<unknown>;
}
/* biome-ignore-end lint/suspicious/noExplicitAny: only so does an instance of every version fit */

/** Adds the token to requests of this instance, and repeats them once with a new one after a 401. */
export function attachToAxios(axios: AxiosLike, { session, isApi }: ApiAccess): void {
  const refusals = createRefusals();
  const { location } = globalThis as { location?: { href: string } };
  const urlOf = (request: AxiosRequest) => new URL(axios.getUri(request), location?.href).href;
  const tokenIn = ({ headers }: AxiosRequest) => String(headers.get('authorization')).slice(7);

  axios.interceptors.request.use(async (request: AxiosRequest) => {
    if (!isApi(urlOf(request))) return request;
    const token = await inTime(session.current(), request);
    if (token === undefined) return request;
    // Whoever repeats a request, this client or the app, repeats it for the person who made it.
    if (isOtherLogin(tokenIn(request), token)) throw new SignedOutError();
    request.headers.set('authorization', `Bearer ${token}`);
    return request;
  });

  /** The answer to the request with another token; undefined where that is no use. */
  const repeat = async (config: AxiosRequest): Promise<unknown> => {
    const url = urlOf(config);
    const refused = tokenIn(config);
    if (config.isRepeatedWithNewToken) refusals.note(url, refused);
    const mayRepeat =
      isApi(url) &&
      isRepeatable(config.data) &&
      !config.isRepeatedWithNewToken &&
      !refusals.isHopeless(url, refused);
    if (!mayRepeat) return undefined;
    await inTime(session.replace(refused), config);
    config.isRepeatedWithNewToken = true;
    return axios.request(config);
  };

  axios.interceptors.response.use(
    // An instance whose `validateStatus` admits a 401 gets it as an answer.
    async (response: AxiosResponse) =>
      (response.status === 401 && (await repeat(response.config))) || response,
    async (error: { config?: AxiosRequest; response?: AxiosResponse }) => {
      const isRefused = error.config !== undefined && error.response?.status === 401;
      const repeated = isRefused && (await repeat(error.config as AxiosRequest));
      if (repeated) return repeated;
      throw error;
    },
  );
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

/** A stream is empty after it was sent. */
const isRepeatable = (data: unknown): boolean =>
  !(data instanceof ReadableStream) && typeof (data as { pipe?: unknown })?.pipe !== 'function';
