/** What a caller is told of a token: every case that a request can hardly arrange. RFC 7662 §2.2. */
import t from 'tap';
import type { Client } from '../../src/oauth/client.ts';
import { type ActiveIntrospection, decideIntrospection } from '../../src/oauth/introspection.ts';
import { digest, type PresentedToken } from '../../src/oauth/opaque-token.ts';
import type { LookUp } from '../../src/oauth/ports.ts';
import type { FamilyLineage, TokenFamily } from '../../src/oauth/token-family.ts';

const now = new Date('2030-01-01T12:00:00.000Z');
const at = (milliseconds: number): Date => new Date(now.getTime() + milliseconds);

const familyId = '01234567-89ab-cdef-0123-456789abcdef';
const lineage = Buffer.alloc(16, 1);
const secret = Buffer.alloc(32, 2);
const secretDigest = digest(secret);

const accessToken: PresentedToken = { kind: 'access_token', familyId, secretDigest };
const refreshTokenOf = (itsLineage: Buffer): PresentedToken => ({
  kind: 'refresh_token',
  familyId,
  lineage: itsLineage,
  lineageDigest: digest(itsLineage),
  secret,
  secretDigest,
});

const caller: Client = {
  key: 7,
  clientId: 'web',
  clientType: 'confidential',
  grantTypes: new Set(['password', 'refresh_token']),
  scope: new Set(['read']),
  introspectionRight: 'own',
  audience: [],
  origins: [],
  delivery: 'body',
  secretDigests: [],
  lifetimes: {
    accessTokenLifetimeSeconds: 900,
    refreshTokenIdleLifetimeSeconds: 3600,
    refreshTokenLifetimeSeconds: 7200,
    retryWindowSeconds: 60,
  },
};

const ownLineage: FamilyLineage = {
  lineageDigest: digest(lineage),
  generation: 0,
  currentDigest: secretDigest,
  rotation: undefined,
  place: '(0,1)',
};

const family: TokenFamily = {
  familyId,
  clientKey: caller.key,
  clientId: caller.clientId,
  subject: undefined,
  scope: caller.scope,
  audience: [],
  lineage: ownLineage,
  startedAt: at(-1000),
  idleExpiresAt: at(1000),
  expiresAt: at(2000),
  revokedAt: undefined,
  sessionsValidAfter: undefined,
  isSuspended: false,
};

const decide = (
  presented: PresentedToken,
  { by = caller, ofFamily = family, expiresAt = at(1000) } = {},
) => {
  const found: LookUp = {
    now,
    client: by,
    family: ofFamily,
    accessToken: { scope: caller.scope, issuedAt: at(-1000), expiresAt },
    pulse: { pulseAt: now, lastOutage: undefined },
  };
  return decideIntrospection(presented, by, found);
};

t.test('an access token is good until the very instant of its end', async (t) => {
  t.equal(decide(accessToken, { expiresAt: at(1) }).active, true);
  t.equal(decide(accessToken, { expiresAt: now }).active, false);
});

t.test('a refresh token is good until its family was idle for too long', async (t) => {
  const idleUntil = (idleExpiresAt: Date) => ({ ofFamily: { ...family, idleExpiresAt } });
  t.equal(decide(refreshTokenOf(lineage), idleUntil(at(1))).active, true);
  t.equal(decide(refreshTokenOf(lineage), idleUntil(now)).active, false);
});

t.test('a current secret without the lineage of its family is no refresh token', async (t) => {
  t.equal(decide(refreshTokenOf(lineage)).active, true);
  t.equal(decide(refreshTokenOf(Buffer.alloc(16, 3))).active, false);
});

t.test('a refresh token was issued at the rotation that made it', async (t) => {
  const rotation = {
    previousDigest: digest('previous'),
    successorSalt: Buffer.alloc(32, 4),
    rotatedAt: at(-500),
    retryUntil: at(500),
  };
  const rotated = { ...family, lineage: { ...ownLineage, rotation } };
  const issuedAt = (ofFamily: TokenFamily) =>
    (decide(refreshTokenOf(lineage), { ofFamily }) as ActiveIntrospection).issuedAt;
  t.strictSame(issuedAt(family), family.startedAt);
  t.strictSame(issuedAt(rotated), rotation.rotatedAt);
});

t.test('without the right a client sees nothing, not even its own tokens', async (t) => {
  const by: Client = { ...caller, introspectionRight: 'none' };
  for (const token of [accessToken, refreshTokenOf(lineage)]) {
    t.strictSame(decide(token, { by }), { active: false });
  }
});
