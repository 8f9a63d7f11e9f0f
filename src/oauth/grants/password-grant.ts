/** The resource owner password credentials grant, RFC 6749 §4.3. */
import {
  invalidGrant,
  invalidRequest,
  TemporarilyUnavailable,
  TooManyFailures,
} from '../errors.ts';
import {
  digest,
  formatAccessToken,
  formatRefreshToken,
  generateFamilyId,
  generateLineage,
  generateSecret,
} from '../opaque-token.ts';
import type {
  FailureCounters,
  PasswordHasher,
  PasswordVerdict,
  ResourceOwner,
  ResourceOwnerStore,
  TokenStore,
} from '../ports.ts';
import { grantScope, type Scope } from '../scope.ts';
import { MAXIMUM_NORMALIZED_UNITS, normalizeUsername } from '../username.ts';
import type { AuthenticatedTokenRequest, Grant, IssuedTokens } from './grant.ts';

/** What the grant works with. `admit` sheds logins before anything is asked for them. */
export interface PasswordGrantPorts {
  readonly tokens: TokenStore;
  readonly resourceOwners: ResourceOwnerStore;
  readonly passwords: PasswordHasher;
  readonly failures: FailureCounters;
  readonly admit: NonNullable<Grant['admit']>;
}

/**
 * Exchanges a person's password for the first tokens of a new family.
 *
 * Scope is decided before the password, so that the answer to a bad scope says nothing about it.
 *
 * @see RFC 6749 §4.3.2
 */
export function passwordGrant(ports: PasswordGrantPorts): Grant {
  return {
    grantType: 'password',
    admit: ports.admit,
    async issue(request) {
      const { username, password, client } = request;
      if (username === undefined) throw invalidRequest('username is missing');
      if (password === undefined) throw invalidRequest('password is missing');
      const grantedScope = grantScope(request.requestedScope, client.scope);
      const { clientId } = client;
      const { isAbandoned, origin } = request;
      const presented = { username, password, network: origin.network, isAbandoned };
      const resourceOwner = await authenticateResourceOwner(ports, clientId, presented);
      return startFamily(ports.tokens, request, resourceOwner, grantedScope);
    },
  };
}

interface PresentedPassword {
  readonly username: string;
  readonly password: string;
  readonly network: string;
  readonly isAbandoned: () => boolean;
}

/**
 * Verifies a password, unless there were too many wrong ones: that is decided before any hash is computed.
 *
 * Unknown, disabled and password-less people cost the same work and get the same answer.
 *
 * @throws OAuthError `invalid_grant`; TooManyFailures
 */
async function authenticateResourceOwner(
  { resourceOwners, passwords, failures }: PasswordGrantPorts,
  clientId: string,
  { username, password, network, isAbandoned }: PresentedPassword,
): Promise<ResourceOwner> {
  const normalized = username.length > MAXIMUM_NORMALIZED_UNITS ? '' : normalizeUsername(username);
  const owner = await resourceOwners.findByUsername(normalized);
  const subject = owner?.subject;
  const usernameDigest = digest(normalized);
  const whose = subject === undefined ? { usernameDigest: shorten(usernameDigest) } : { subject };
  const context = { event: 'login_failed', clientId, ...whose } as const;
  const attempt = await failures.reserveLogin({ subject, usernameDigest, network, clientId });
  if (attempt.outcome === 'refused') {
    throw new TooManyFailures('too many failed logins', attempt.retryAfterSeconds, context);
  }
  const verdict = await passwords
    .verify(password, owner?.passwordHash, isAbandoned)
    .catch(async (error) => {
      await attempt.released();
      throw error;
    });
  const detail = causeOfRefusal(owner, verdict);
  if (owner === undefined || detail !== undefined) {
    const securityEvent = attempt.failed();
    const isFault = verdict === 'unreadable';
    throw invalidGrant(detail ?? '', { ...context, securityEvent, isFault });
  }
  await attempt.succeeded();
  if (verdict === 'match-needs-rehash')
    await upgradeHash({ resourceOwners, passwords }, owner, password);
  return owner;
}

/** Stores a hash with current parameters; while that cannot be done, a login is right all the same. */
async function upgradeHash(
  { resourceOwners, passwords }: Pick<PasswordGrantPorts, 'resourceOwners' | 'passwords'>,
  owner: ResourceOwner,
  password: string,
): Promise<void> {
  try {
    await resourceOwners.upgradePasswordHash(owner, await passwords.hash(password));
  } catch (error) {
    if (!(error instanceof TemporarilyUnavailable)) throw error;
  }
}

function causeOfRefusal(
  owner: ResourceOwner | undefined,
  verdict: PasswordVerdict,
): string | undefined {
  if (owner === undefined) return 'unknown resource owner';
  if (verdict === 'unreadable') return 'stored password hash is unreadable';
  if (verdict === 'mismatch') return 'wrong password';
  if (owner.isDisabled) return 'resource owner is disabled';
  return undefined;
}

const shorten = (usernameDigest: Buffer): string => usernameDigest.toString('hex').slice(0, 16);

async function startFamily(
  tokens: TokenStore,
  { client, origin }: AuthenticatedTokenRequest,
  resourceOwner: ResourceOwner,
  grantedScope: Scope,
): Promise<IssuedTokens> {
  const familyId = generateFamilyId();
  const lineage = generateLineage();
  const refreshSecret = generateSecret();
  const accessSecret = generateSecret();
  const mayRefresh = client.grantTypes.has('refresh_token');
  const started = await tokens.startFamily({
    familyId,
    client,
    resourceOwner,
    scope: grantedScope,
    refreshToken: mayRefresh
      ? { lineageDigest: digest(lineage), digest: digest(refreshSecret) }
      : undefined,
    accessTokenDigest: digest(accessSecret),
    origin,
  });
  if (started.outcome === 'lost') {
    const { subject } = resourceOwner;
    throw invalidGrant('credentials changed during login', {
      event: 'login_failed',
      clientId: client.clientId,
      subject,
    });
  }
  return {
    accessToken: formatAccessToken(familyId, accessSecret),
    expiresInSeconds: started.accessTokenExpiresInSeconds,
    refreshToken: mayRefresh
      ? {
          text: formatRefreshToken(familyId, lineage, refreshSecret),
          expiresInSeconds: started.refreshTokenExpiresInSeconds,
        }
      : undefined,
    grantedScope,
    event: 'login',
    clientId: client.clientId,
    familyId,
    subject: resourceOwner.subject,
  };
}
