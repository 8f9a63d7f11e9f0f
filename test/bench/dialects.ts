/** How each server is asked, what its tokens look like, and which answer is right. */

import { formatAccessToken, formatRefreshToken } from '../../src/oauth/opaque-token.ts';
import {
  AUDIENCE,
  accessSecretOf,
  apiClient,
  familyId,
  lineageOf,
  PASSWORD,
  refreshSecretOf,
  SCOPE,
  subjectOfFamily,
  webClient,
} from './families.ts';

export type DialectName = 'heirloom' | 'oidc-provider' | 'oauth2-server' | 'no-database';

export interface Dialect {
  /** The tokens with which a family was seeded. */
  readonly accessToken: (family: number) => string;
  readonly refreshToken: (family: number) => string;
  /** Whole requests, ready to be written to a socket. */
  readonly introspect: (token: string) => string;
  readonly refresh: (token: string) => string;
  readonly login: (username: string) => string;
  /** Undefined where the server has no such endpoint. */
  readonly revoke: ((refreshToken: string) => string) | undefined;
  /** What a revocation is answered with: to RFC 7009 §2.2 the status is all that counts. */
  readonly revokedBody: string;
  /** A dead token is 200 `{"active":false}` to RFC 7662, and 401 to a guarded route. */
  readonly inactiveStatus: number;
  readonly isInactive: (body: string) => boolean;
  /** Compares an answer about a live token with what was seeded, member by member. */
  readonly isActive: (body: string, family: number, families: number) => boolean;
}

const basic = ({ id, secret }: { id: string; secret: string }): string =>
  `Basic ${Buffer.from(`${id}:${secret}`).toString('base64')}`;

const asWeb = basic(webClient);
const asApi = basic(apiClient);

const post = (path: string, authorization: string, form: string): string =>
  `POST ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: ${authorization}\r\n` +
  'content-type: application/x-www-form-urlencoded\r\n' +
  `content-length: ${form.length}\r\n\r\n${form}`;

const get = (path: string, authorization: string): string =>
  `GET ${path} HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: ${authorization}\r\n\r\n`;

const loginForm = (username: string): string =>
  `grant_type=password&username=${username}&password=${PASSWORD.replaceAll(' ', '+')}`;

const hasMembers = (body: string, members: Readonly<Record<string, unknown>>): boolean => {
  const answer = JSON.parse(body);
  return Object.entries(members).every(([name, value]) => answer[name] === value);
};

const rfc7662 = {
  inactiveStatus: 200,
  isInactive: (body: string) => body === '{"active":false}',
} as const;

const heirloom: Dialect = {
  ...rfc7662,
  accessToken: (family) => formatAccessToken(familyId(family), accessSecretOf(family)),
  refreshToken: (family) =>
    formatRefreshToken(familyId(family), lineageOf(family), refreshSecretOf(family)),
  // The hint spares oidc-provider a look-up; the same form goes to everybody.
  introspect: (token) => post('/introspect', asApi, `token=${token}&token_type_hint=access_token`),
  refresh: (token) => post('/token', asWeb, `grant_type=refresh_token&refresh_token=${token}`),
  login: (username) => post('/token', asWeb, loginForm(username)),
  revoke: (token) => post('/revoke', asWeb, `token=${token}&token_type_hint=refresh_token`),
  revokedBody: '{}',
  isActive: (body, family, families) =>
    hasMembers(body, {
      active: true,
      client_id: webClient.id,
      sub: subjectOfFamily(family, families),
      scope: SCOPE,
      aud: AUDIENCE,
      token_type: 'Bearer',
    }),
};

/** The same requests, and one answer for everybody. */
const noDatabase: Dialect = {
  ...heirloom,
  isActive: (body) => hasMembers(body, { active: true, client_id: webClient.id }),
};

const oidcProvider: Dialect = {
  ...heirloom,
  accessToken: (family) => accessSecretOf(family).toString('base64url'),
  refreshToken: (family) => refreshSecretOf(family).toString('base64url'),
  introspect: (token) =>
    post('/token/introspection', asApi, `token=${token}&token_type_hint=access_token`),
  revoke: (token) =>
    post('/token/revocation', asWeb, `token=${token}&token_type_hint=refresh_token`),
  revokedBody: '',
  isActive: (body, family, families) =>
    hasMembers(body, {
      active: true,
      client_id: webClient.id,
      sub: subjectOfFamily(family, families),
      scope: SCOPE,
      token_type: 'Bearer',
    }),
};

/** It knows no introspection: a route guarded by `authenticate()` says who the bearer is. */
const oauth2Server: Dialect = {
  ...heirloom,
  accessToken: (family) => accessSecretOf(family).toString('hex'),
  refreshToken: (family) => refreshSecretOf(family).toString('hex'),
  introspect: (token) => get('/resource', `Bearer ${token}`),
  revoke: undefined,
  inactiveStatus: 401,
  isInactive: (body) => hasMembers(body, { error: 'invalid_token' }),
  isActive: (body, family, families) =>
    hasMembers(body, {
      active: true,
      client_id: webClient.id,
      sub: subjectOfFamily(family, families),
      scope: SCOPE,
    }),
};

export const dialects: Readonly<Record<DialectName, Dialect>> = {
  heirloom,
  'oidc-provider': oidcProvider,
  'oauth2-server': oauth2Server,
  'no-database': noDatabase,
};
