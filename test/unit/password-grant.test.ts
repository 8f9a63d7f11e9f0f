/** What a login comes to where hashing, the store or the person gets in its way. RFC 6749 §4.3. */
import t from 'tap';
import type { Client } from '../../src/oauth/client.ts';
import { OAuthError, TemporarilyUnavailable } from '../../src/oauth/errors.ts';
import type { AuthenticatedTokenRequest } from '../../src/oauth/grants/grant.ts';
import { type PasswordGrantPorts, passwordGrant } from '../../src/oauth/grants/password-grant.ts';
import type { PasswordHasher, ResourceOwner, TokenStore } from '../../src/oauth/ports.ts';

const client = {
  clientId: 'web',
  grantTypes: new Set(['password']),
  scope: new Set(['read']),
} as Partial<Client> as Client;

const request = {
  client,
  username: 'alice',
  password: 'correct horse battery staple',
  requestedScope: undefined,
  origin: { address: '192.0.2.1', network: '192.0.2.1' },
  isAbandoned: () => false,
} as Partial<AuthenticatedTokenRequest> as AuthenticatedTokenRequest;

const alice: ResourceOwner = {
  username: 'alice',
  subject: '01234567-89ab-cdef-0123-456789abcdef',
  passwordHash: 'a hash',
  credentialVersion: 1,
  isDisabled: false,
};

const trouble = async (): Promise<never> => {
  throw new TemporarilyUnavailable('too many passwords are waiting to be hashed');
};

/** Logs in; tells what came of it and what became of the reservation. */
async function logIn({
  owner = alice,
  ...hasher
}: Partial<PasswordHasher> & { readonly owner?: ResourceOwner }) {
  const reservation: string[] = [];
  const noting = (name: string) => async () => void reservation.push(name);
  const ports: PasswordGrantPorts = {
    tokens: {
      startFamily: async () => ({
        outcome: 'issued',
        accessTokenExpiresInSeconds: 900,
        refreshTokenExpiresInSeconds: 900,
      }),
    } as Partial<TokenStore> as TokenStore,
    resourceOwners: {
      findByUsername: async () => owner,
      upgradePasswordHash: async () => void reservation.push('upgraded'),
    },
    passwords: { hash: async () => 'a new hash', verify: async () => 'match', ...hasher },
    failures: {
      reserveLogin: async () => ({
        outcome: 'reserved',
        failed: () => void reservation.push('failed'),
        succeeded: noting('succeeded'),
        released: noting('released'),
      }),
      countClientFailure: async () => ({ retryAfterSeconds: undefined, securityEvent: undefined }),
    },
    admit: (issue) => issue(),
  };
  const [answer] = await Promise.allSettled([passwordGrant(ports).issue(request)]);
  return { answer, reservation };
}

t.test(
  'a right password is a success, with a better hash where there is one to be had',
  async (t) => {
    const match = await logIn({});
    t.match(match, { answer: { status: 'fulfilled' }, reservation: ['succeeded'] });
    const weak = await logIn({ verify: async () => 'match-needs-rehash' });
    t.equal(weak.answer.status, 'fulfilled');
    t.strictSame(weak.reservation, ['succeeded', 'upgraded']);
  },
);

t.test('a right password is one, too, while no better hash can be computed', async (t) => {
  const { answer, reservation } = await logIn({
    verify: async () => 'match-needs-rehash',
    hash: trouble,
  });
  t.equal(answer.status, 'fulfilled');
  t.strictSame(reservation, ['succeeded']);
});

t.test('a disabled person who knows the password clears no failures', async (t) => {
  const { answer, reservation } = await logIn({ owner: { ...alice, isDisabled: true } });
  t.match(answer, { status: 'rejected', reason: { code: 'invalid_grant' } });
  t.type(answer.status === 'rejected' && answer.reason, OAuthError);
  t.strictSame(reservation, ['failed']);
});

t.test('a password that could not be verified is no failure', async (t) => {
  const { answer, reservation } = await logIn({ verify: trouble });
  t.type(answer.status === 'rejected' && answer.reason, TemporarilyUnavailable);
  t.strictSame(reservation, ['released']);
});
