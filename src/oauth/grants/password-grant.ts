/** The resource owner password credentials grant, RFC 6749 §4.3. */
import { invalidGrant, invalidRequest } from '../errors.ts';
import {
  digest,
  formatAccessToken,
  formatRefreshToken,
  generateFamilyId,
  generateLineage,
  generateSecret,
} from '../opaque-token.ts';
import type { PasswordHasher, ResourceOwner, ResourceOwnerStore, TokenStore } from '../ports.ts';
import { grantScope, type Scope } from '../scope.ts';
import { MAXIMUM_NORMALIZED_UNITS, normalizeUsername } from '../username.ts';
import type { AuthenticatedTokenRequest, Grant, IssuedTokens } from './grant.ts';

export interface PasswordGrantPorts {
  readonly tokens: TokenStore;
  readonly resourceOwners: ResourceOwnerStore;
  readonly passwords: PasswordHasher;
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
    async issue(request) {
      const { username, password, client } = request;
      if (username === undefined) throw invalidRequest('username is missing');
      if (password === undefined) throw invalidRequest('password is missing');
      const grantedScope = grantScope(request.requestedScope, client.scope);
      const { clientId } = client;
      const resourceOwner = await authenticateResourceOwner(ports, clientId, {
        username,
        password,
        isAbandoned: request.isAbandoned,
      });
      return startFamily(ports.tokens, request, resourceOwner, grantedScope);
    },
  };
}

interface PresentedPassword {
  readonly username: string;
  readonly password: string;
  readonly isAbandoned: () => boolean;
}

/**
 * Verifies a password.
 *
 * Unknown, disabled and password-less people cost the same work and get the same answer.
 *
 * @throws OAuthError `invalid_grant`
 */
async function authenticateResourceOwner(
  { resourceOwners, passwords }: PasswordGrantPorts,
  clientId: string,
  { username, password, isAbandoned }: PresentedPassword,
): Promise<ResourceOwner> {
  const normalized = username.length > MAXIMUM_NORMALIZED_UNITS ? '' : normalizeUsername(username);
  const owner = await resourceOwners.findByUsername(normalized);
  const verdict = await passwords.verify(password, owner?.passwordHash, isAbandoned);
  const event = 'login_failed';
  if (owner === undefined) {
    const usernameDigest = digest(normalized).toString('hex').slice(0, 16);
    throw invalidGrant('unknown resource owner', { event, clientId, usernameDigest });
  }
  const context = { event, clientId, subject: owner.subject } as const;
  if (verdict === 'unreadable') {
    throw invalidGrant('stored password hash is unreadable', { ...context, isFault: true });
  }
  if (verdict === 'mismatch') throw invalidGrant('wrong password', context);
  if (owner.isDisabled) throw invalidGrant('resource owner is disabled', context);
  if (verdict === 'match-needs-rehash') {
    await resourceOwners.upgradePasswordHash(owner, await passwords.hash(password));
  }
  return owner;
}

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
