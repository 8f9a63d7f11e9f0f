/** Requests with explicit parameters, and answers as a test wants to compare them. */
import { assertDocumented } from './documented.ts';

export interface Answer {
  readonly status: number;
  readonly headers: Headers;
  readonly text: string;
  /** The parsed body, or undefined for an empty one. */
  // biome-ignore lint/suspicious/noExplicitAny: a test asserts what is in it
  readonly body: any;
}

export type Parameters = Readonly<Record<string, string>> | readonly (readonly [string, string])[];

/** Encodes a form; pairs allow repeated names. */
export const form = (parameters: Parameters): string =>
  new URLSearchParams(parameters as Record<string, string>).toString();

/** RFC 6749 §2.3.1: both parts form-urlencoded first. */
export function basic(clientId: string, clientSecret: string): Record<string, string> {
  const encode = (part: string) => new URLSearchParams([['', part]]).toString().slice(1);
  const pair = `${encode(clientId)}:${encode(clientSecret)}`;
  return { authorization: `Basic ${Buffer.from(pair).toString('base64')}` };
}

export async function send(url: string, init: RequestInit = {}): Promise<Answer> {
  const response = await fetch(url, { redirect: 'manual', ...init });
  assertDocumented(init.method ?? 'GET', url, response.status, response.headers);
  const text = await response.text();
  const isJson = response.headers.get('content-type')?.startsWith('application/json');
  return {
    status: response.status,
    headers: response.headers,
    text,
    body: isJson && text !== '' ? JSON.parse(text) : undefined,
  };
}

/** POSTs a form. */
export const post = (
  url: string,
  parameters: Parameters,
  headers: Record<string, string> = {},
): Promise<Answer> =>
  send(url, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers },
    body: form(parameters),
  });
