/** The same for axios, which is known here by its shape only. */
import { isOtherLogin } from './access-token.ts';
import { type ApiAccess, createRefusals } from './authorized-fetch.ts';
import { SignedOutError } from './errors.ts';

/** What the interceptor touches of a request's configuration. */
interface AxiosRequest {
  readonly headers: { set(name: string, value: string): unknown; get(name: string): unknown };
  readonly data?: unknown;
  /** Ours: keeps its place when axios copies a configuration, which a symbol would not. */
  isRepeatedWithNewToken?: boolean;
}

/* biome-ignore-start lint/suspicious/noExplicitAny: only so does an instance of every version fit */
/** As much of an axios instance as the interceptor needs. */
export interface AxiosLike {
  readonly interceptors: {
    readonly request: { use(onFulfilled: (request: any) => any): unknown };
    readonly response: { use(onFulfilled: null, onRejected: (error: any) => any): unknown };
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
    const token = await session.current();
    // Whoever repeats a request, this client or the app, repeats it for the person who made it.
    if (isOtherLogin(tokenIn(request), token)) throw new SignedOutError();
    request.headers.set('authorization', `Bearer ${token}`);
    return request;
  });

  axios.interceptors.response.use(null, async (error) => {
    const { config, response } = error as { config?: AxiosRequest; response?: { status: number } };
    if (config === undefined || response?.status !== 401) throw error;
    const url = urlOf(config);
    const refused = tokenIn(config);
    if (config.isRepeatedWithNewToken) refusals.note(url, refused);
    const mayRepeat =
      isApi(url) &&
      isRepeatable(config.data) &&
      !config.isRepeatedWithNewToken &&
      !refusals.isHopeless(url, refused);
    if (!mayRepeat) throw error;
    await session.replace(refused);
    config.isRepeatedWithNewToken = true;
    return axios.request(config);
  });
}

/** A stream is empty after it was sent. */
const isRepeatable = (data: unknown): boolean =>
  !(data instanceof ReadableStream) && typeof (data as { pipe?: unknown })?.pipe !== 'function';
