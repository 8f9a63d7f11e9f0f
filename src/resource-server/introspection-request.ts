/** Asks an authorization server about a token, RFC 7662 §2, over connections that are kept. */
import http from 'node:http';
import https from 'node:https';

export interface IntrospectionRequestOptions {
  readonly endpoint: URL;
  readonly clientId: string;
  readonly clientSecret: string;
  readonly timeoutMilliseconds: number;
  readonly maximumConnections: number;
}

/**
 * What came back. `unavailable`: nobody knows whether the token is good. `misconfigured`: the server
 * answered, and what it says will not change before somebody changes a configuration.
 */
export type IntrospectionAnswer =
  | { readonly outcome: 'answered'; readonly claims: Claims; readonly answeredAt: Date | undefined }
  | {
      readonly outcome: 'unavailable';
      readonly detail: string;
      readonly retryAfterSeconds: number;
    }
  | { readonly outcome: 'misconfigured'; readonly detail: string };

/** The members of an introspection response as they came (RFC 7662 §2.2); `active` is a boolean. */
export type Claims = Readonly<Record<string, unknown>> & { readonly active: boolean };

export interface IntrospectionRequest {
  /** Never rejects. */
  ask(token: string): Promise<IntrospectionAnswer>;
  /** Closes the connections. */
  close(): void;
}

/** An honest answer has a few hundred bytes. */
const MAXIMUM_ANSWER_BYTES = 64 * 1024;
/** However long the server says; an API that is down for hours after a minute's trouble helps nobody. */
const MAXIMUM_RETRY_AFTER_SECONDS = 60;

interface HttpAnswer {
  readonly status: number;
  readonly headers: http.IncomingHttpHeaders;
  readonly body: string;
}

export function createIntrospectionRequest(
  options: IntrospectionRequestOptions,
): IntrospectionRequest {
  const { endpoint, maximumConnections } = options;
  const transport = endpoint.protocol === 'https:' ? https : http;
  const agent = new transport.Agent({
    keepAlive: true,
    maxSockets: maximumConnections,
    maxFreeSockets: maximumConnections,
  });
  const headers = {
    authorization: basicCredentials(options.clientId, options.clientSecret),
    accept: 'application/json',
    'content-type': 'application/x-www-form-urlencoded',
  };

  const post = (body: string, signal: AbortSignal): Promise<HttpAnswer> =>
    new Promise((resolve, reject) => {
      const request = transport.request(
        endpoint,
        {
          method: 'POST',
          agent,
          signal,
          headers: { ...headers, 'content-length': Buffer.byteLength(body) },
        },
        (response) => readAnswer(response).then(resolve, reject),
      );
      request.on('error', (error) =>
        reject(request.reusedSocket && isReset(error) ? new StaleConnection(error) : error),
      );
      request.end(body);
    });

  /**
   * A server may close an idle connection in the very moment in which it is used again, and a network
   * forgets all of them at once: each that is found dead is gone, and the last resort is a new one.
   */
  const postAfresh = (body: string, signal: AbortSignal): Promise<HttpAnswer> =>
    post(body, signal).catch((error) => {
      if (error instanceof StaleConnection) return postAfresh(body, signal);
      throw error;
    });

  return {
    async ask(token) {
      const body = new URLSearchParams({ token, token_type_hint: 'access_token' }).toString();
      const signal = AbortSignal.timeout(options.timeoutMilliseconds);
      try {
        return judge(await postAfresh(body, signal));
      } catch (error) {
        return unavailable(signal.aborted ? 'no answer in time' : reasonOf(error));
      }
    },
    close: () => agent.destroy(),
  };
}

class StaleConnection extends Error {
  constructor(cause: Error) {
    super(cause.message, { cause });
  }
}

const isReset = (error: NodeJS.ErrnoException): boolean =>
  error.code === 'ECONNRESET' || error.code === 'EPIPE';

/** A code such as ECONNREFUSED says enough; messages of parsers could repeat what they parsed. */
const reasonOf = (error: unknown): string =>
  (error as NodeJS.ErrnoException).code ?? 'the answer could not be read';

async function readAnswer(response: http.IncomingMessage): Promise<HttpAnswer> {
  const chunks: Buffer[] = [];
  let bytes = 0;
  for await (const chunk of response as AsyncIterable<Buffer>) {
    bytes += chunk.length;
    if (bytes > MAXIMUM_ANSWER_BYTES) {
      response.destroy();
      throw Object.assign(new Error(), { code: 'the answer is too long' });
    }
    chunks.push(chunk);
  }
  const body = Buffer.concat(chunks).toString('utf8');
  return { status: response.statusCode ?? 0, headers: response.headers, body };
}

/** RFC 7662 §2.2 and §2.3; redirects are not followed, or the secret would follow them. */
function judge({ status, headers, body }: HttpAnswer): IntrospectionAnswer {
  if (status === 429 || status >= 500) {
    return unavailable(`status ${status}`, Number(headers['retry-after']));
  }
  if (status === 401 || status === 403) {
    return { outcome: 'misconfigured', detail: `this API's credentials are refused (${status})` };
  }
  if (status !== 200) return { outcome: 'misconfigured', detail: `status ${status}` };
  if (!/^application\/json\s*(;|$)/i.test(headers['content-type'] ?? '')) {
    return { outcome: 'misconfigured', detail: 'the answer is not JSON' };
  }
  const claims = parseClaims(body);
  if (claims === undefined) return unavailable('the answer is no introspection response');
  const answeredAt = new Date(headers.date ?? Number.NaN);
  return {
    outcome: 'answered',
    claims,
    answeredAt: Number.isNaN(answeredAt.getTime()) ? undefined : answeredAt,
  };
}

function parseClaims(body: string): Claims | undefined {
  try {
    const parsed: unknown = JSON.parse(body);
    const isClaims =
      typeof parsed === 'object' &&
      parsed !== null &&
      typeof (parsed as { active?: unknown }).active === 'boolean';
    return isClaims ? (parsed as Claims) : undefined;
  } catch {
    return undefined;
  }
}

function unavailable(detail: string, retryAfterSeconds = Number.NaN): IntrospectionAnswer {
  const isUsable = retryAfterSeconds >= 1;
  return {
    outcome: 'unavailable',
    detail,
    retryAfterSeconds: isUsable
      ? Math.min(Math.ceil(retryAfterSeconds), MAXIMUM_RETRY_AFTER_SECONDS)
      : 1,
  };
}

/** RFC 6749 §2.3.1: both parts form-urlencoded first. */
function basicCredentials(clientId: string, clientSecret: string): string {
  const encode = (part: string) => new URLSearchParams([['', part]]).toString().slice(1);
  return `Basic ${Buffer.from(`${encode(clientId)}:${encode(clientSecret)}`).toString('base64')}`;
}
