/** The cast of `requirements`: who logs in, through what, and who asks about it. */
import type { TokenRequest } from '../../src/oauth/grants/grant.ts';
import { type Answer, basic, post } from './client.ts';
import type { TestServer } from './server.ts';

export const ALICE_PASSWORD = 'a phrase that only alice knows';

export interface Cast {
  readonly c1: { readonly id: 'C1'; readonly secret: string };
  readonly c2: { readonly id: 'C2'; readonly secret: string };
  readonly p1: { readonly id: 'P1' };
  readonly rs1: { readonly id: 'RS1'; readonly secret: string };
  readonly rs2: { readonly id: 'RS2'; readonly secret: string };
  readonly aliceSubject: string;
}

export const API_AUDIENCE = 'https://api.example';

/** C1 and C2 confidential, P1 public, RS1 and RS2 resource servers, alice active, dora disabled. */
export async function createCast({ dependencies }: TestServer): Promise<Cast> {
  const { clients, resourceOwners } = dependencies;
  const grants = { grantTypes: ['password', 'refresh_token'], scope: ['read', 'write'] };
  const confidential = async (clientId: string, settings: object) => {
    const created = await clients.create({ clientId, clientType: 'confidential', ...settings });
    return created.clientSecret as string;
  };
  const audience = [API_AUDIENCE];
  const c1 = await confidential('C1', { ...grants, audience, introspectionRight: 'own' });
  const c2 = await confidential('C2', { ...grants, introspectionRight: 'own' });
  await clients.create({ clientId: 'P1', clientType: 'public', ...grants });
  const rs1 = await confidential('RS1', { introspectionRight: 'own', audience });
  const rs2 = await confidential('RS2', {
    introspectionRight: 'own',
    audience: ['https://other.example'],
  });
  const alice = await resourceOwners.create('alice', ALICE_PASSWORD);
  await resourceOwners.create('dora', ALICE_PASSWORD);
  await resourceOwners.disable('dora');
  return {
    c1: { id: 'C1', secret: c1 },
    c2: { id: 'C2', secret: c2 },
    p1: { id: 'P1' },
    rs1: { id: 'RS1', secret: rs1 },
    rs2: { id: 'RS2', secret: rs2 },
    aliceSubject: alice.subject,
  };
}

export type Caller = { readonly id: string; readonly secret?: string };

const authentication = (caller: Caller) =>
  caller.secret === undefined ? {} : basic(caller.id, caller.secret);
const identification = (caller: Caller): Record<string, string> =>
  caller.secret === undefined ? { client_id: caller.id } : {};

/** Logs alice in, unless told otherwise. */
export const login = (
  { url }: TestServer,
  caller: Caller,
  parameters: Record<string, string> = {},
): Promise<Answer> =>
  post(
    `${url}/token`,
    {
      grant_type: 'password',
      username: 'alice',
      password: ALICE_PASSWORD,
      ...identification(caller),
      ...parameters,
    },
    authentication(caller),
  );

export const refresh = (
  { url }: TestServer,
  caller: Caller,
  refreshToken: string,
  parameters: Record<string, string> = {},
): Promise<Answer> =>
  post(
    `${url}/token`,
    {
      grant_type: 'refresh_token',
      refresh_token: refreshToken,
      ...identification(caller),
      ...parameters,
    },
    authentication(caller),
  );

export const revoke = (
  { url }: TestServer,
  caller: Caller,
  token: string,
  parameters: Record<string, string> = {},
): Promise<Answer> =>
  post(
    `${url}/revoke`,
    { token, ...identification(caller), ...parameters },
    authentication(caller),
  );

export const introspect = (
  { url }: TestServer,
  caller: Caller,
  token: string,
  parameters: Record<string, string> = {},
): Promise<Answer> => post(`${url}/introspect`, { token, ...parameters }, authentication(caller));

/** The body of every `invalid_grant`, compared whole so that an extra member fails. */
export const invalidGrantBody = {
  error: 'invalid_grant',
  error_description:
    'The credentials or the token are invalid, expired, revoked, or were issued to another client.',
};

/** A refresh as the core's door takes it, of nobody yet and without HTTP. */
export const refreshRequest = (refreshToken: string): TokenRequest => ({
  grantType: 'refresh_token',
  credentials: undefined,
  scope: undefined,
  username: undefined,
  password: undefined,
  refreshToken,
  origin: {
    address: '127.0.0.1',
    network: '127.0.0.1',
    userAgent: undefined,
    deviceLabel: undefined,
  },
  browser: {
    origin: undefined,
    fetchSite: undefined,
    csrfHeader: undefined,
    refreshCookies: [],
  },
  noteClient: () => {},
  checkLimit: async () => {},
  isAbandoned: () => false,
});
