/** Requests as a browser makes them for an app in cookie mode, with each part open to be forged. */
import { createHash } from 'node:crypto';
import { type Answer, post } from './client.ts';
import { ALICE_PASSWORD } from './fixtures.ts';

export const APP_ORIGIN = 'https://app.example.com';

/** What a browser adds to a request of an app on a sibling host of the server. */
export const ownApp: Readonly<Record<string, string>> = {
  origin: APP_ORIGIN,
  'sec-fetch-site': 'same-site',
  'x-heirloom-csrf': '1',
};

/** Computed anew, and not by the product's own function: apps and proxies rely on it. */
export const cookieNameOf = (clientId: string, prefix = '__Host-'): string =>
  `${prefix}heirloom_refresh_${createHash('sha256').update(clientId).digest('hex').slice(0, 16)}`;

/** A `Set-Cookie` header, taken apart. */
export interface SetCookie {
  readonly name: string;
  readonly value: string;
  /** By lower-case name; empty for those without a value. */
  readonly attributes: Readonly<Record<string, string>>;
}

/** All cookies that an answer sets. */
export const setCookies = ({ headers }: Answer): SetCookie[] =>
  headers.getSetCookie().map((header) => {
    const [pair = '', ...rest] = header.split(';').map((part) => part.trim());
    const equals = pair.indexOf('=');
    const attributes = rest.map((part) => {
      const [name = '', value = ''] = part.split('=');
      return [name.toLowerCase(), value];
    });
    return {
      name: pair.slice(0, equals),
      value: pair.slice(equals + 1),
      attributes: Object.fromEntries(attributes),
    };
  });

/** The value of the one cookie that an answer sets. */
export function cookieValueOf(answer: Answer): string {
  const [cookie, ...others] = setCookies(answer);
  if (cookie === undefined || others.length > 0) {
    throw new Error(`${others.length + (cookie ? 1 : 0)} cookies with status ${answer.status}`);
  }
  return cookie.value;
}

/** The header that a browser sends back. */
export const cookieHeader = (clientId: string, value: string): Record<string, string> => ({
  cookie: `${cookieNameOf(clientId)}=${value}`,
});

export const browserLogin = (
  url: string,
  clientId: string,
  headers: Readonly<Record<string, string>> = ownApp,
): Promise<Answer> =>
  post(
    `${url}/token`,
    {
      grant_type: 'password',
      client_id: clientId,
      username: 'alice',
      password: ALICE_PASSWORD,
    },
    headers,
  );

export const browserRefresh = (
  url: string,
  clientId: string,
  headers: Readonly<Record<string, string>>,
  parameters: Record<string, string> = {},
): Promise<Answer> =>
  post(
    `${url}/token`,
    { grant_type: 'refresh_token', client_id: clientId, ...parameters },
    headers,
  );

export const browserLogout = (
  url: string,
  clientId: string,
  headers: Readonly<Record<string, string>>,
  parameters: Record<string, string> = {},
): Promise<Answer> => post(`${url}/revoke`, { client_id: clientId, ...parameters }, headers);
