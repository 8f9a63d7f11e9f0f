/** The refresh token grant with rotation, RFC 6749 §6 and RFC 9700 §4.14.2. */
import type { Client } from '../client.ts';
import {
  invalidGrant,
  invalidRequest,
  type OAuthError,
  TemporarilyUnavailable,
} from '../errors.ts';
import {
  deriveSuccessor,
  digest,
  formatAccessToken,
  formatRefreshToken,
  generateSecret,
  isSameDigest,
  type PresentedRefreshToken,
} from '../opaque-token.ts';
import type { LookUp, TokenStore } from '../ports.ts';
import { grantScope, isWithinScope } from '../scope.ts';
import {
  decideRefresh,
  type FamilyLineage,
  type FamilyRotation,
  isHeldBy,
  isPulseOverdue,
  type TokenFamily,
} from '../token-family.ts';
import type { AuthenticatedTokenRequest, Grant, IssuedTokens } from './grant.ts';

/**
 * How often a decision is made anew because the family changed between reading and writing, or was held by
 * somebody who may have changed it. More than a few times means that something is wrong.
 */
const MAXIMUM_DECISIONS = 6;

/**
 * Exchanges a refresh token for the next pair of its family.
 *
 * @throws OAuthError `invalid_grant` if the token is unknown, dead, replayed or another client's;
 *   `invalid_scope` if more is requested than was granted, which spends nothing
 * @see RFC 6749 §6
 */
export function refreshTokenGrant(tokens: TokenStore): Grant {
  return {
    grantType: 'refresh_token',
    async issue(request) {
      if (request.refreshToken === undefined) throw nothingPresented(request.client);
      const presented = request.presentedToken;
      if (presented?.kind !== 'refresh_token') {
        const { clientId } = request.client;
        throw invalidGrant('not a refresh token', { event: 'refresh_failed', clientId });
      }
      let { lookUp } = request;
      for (let decisions = 0; decisions < MAXIMUM_DECISIONS; decisions++) {
        const issued = await decideAndApply(tokens, request, presented, lookUp);
        if (issued !== 'changed') return issued;
        lookUp = await tokens.lookUp({ clientId: request.client.clientId, token: presented });
      }
      throw new TemporarilyUnavailable('family changed between every read and write');
    },
  };
}

/**
 * A missing parameter is a mistake of the client (RFC 6749 §5.2). A missing cookie is none: the browser
 * has let it expire, or the person has deleted it, and the app has to learn that the session is over.
 */
const nothingPresented = ({ clientId, delivery }: Client): OAuthError =>
  delivery === 'cookie'
    ? invalidGrant('no refresh cookie', { event: 'refresh_failed', clientId })
    : invalidRequest('refresh_token is missing', { clientId });

/** One decision and its effect; `changed` asks for another read, since nothing is decided on a stale one. */
async function decideAndApply(
  tokens: TokenStore,
  request: AuthenticatedTokenRequest,
  presented: PresentedRefreshToken,
  { family, pulse, now }: LookUp,
): Promise<IssuedTokens | 'changed'> {
  const { client, origin } = request;
  const { familyId } = presented;
  const context = {
    event: 'refresh_failed',
    clientId: client.clientId,
    familyId,
    subject: family?.subject,
  } as const;
  // Whoever has gone retries, and the window counts from what is done now.
  if (request.isAbandoned()) throw new TemporarilyUnavailable('nobody waits for the answer');
  if (isPulseOverdue(pulse, now)) {
    await tokens.recordPulse();
    return 'changed';
  }
  const decision = decideRefresh(family, presented, client.key, pulse, now);
  switch (decision.kind) {
    case 'refuse':
      throw invalidGrant(decision.detail, {
        ...context,
        // A family that was deleted, with its person or after its end, comes back no more.
        isSessionOver: family === undefined || isHeldBy(family, presented, client.key),
      });
    case 'another-clients': {
      const kind = 'refresh_token_of_another_client';
      tokens.recordSecurityEvent({ kind, familyId, client, origin });
      throw invalidGrant('refresh token of another client', { ...context, securityEvent: kind });
    }
    case 'replay': {
      const kind = 'refresh_token_replay';
      const event = { kind, familyId, client, origin } as const;
      const ended = await tokens.revokeFamily(familyId, 'replay', event);
      throw invalidGrant('spent refresh token', {
        ...context,
        isSessionOver: true,
        securityEvent: kind,
        familyAddress: ended?.address,
      });
    }
    case 'rotate':
      return rotate(tokens, request, presented, decision);
    case 'retry':
      return retry(tokens, request, presented, decision);
  }
}

/** Spends the presented token and issues the pair that is derived from it. */
async function rotate(
  tokens: TokenStore,
  request: AuthenticatedTokenRequest,
  presented: PresentedRefreshToken,
  { family, lineage }: { family: TokenFamily; lineage: FamilyLineage },
): Promise<IssuedTokens | 'changed'> {
  const grantedScope = grantScope(request.requestedScope, family.scope);
  const successorSalt = generateSecret();
  const { refreshSecret, accessSecret } = deriveSuccessor(successorSalt, presented.secret);
  const rotated = await tokens.rotate({
    familyId: family.familyId,
    place: lineage.place,
    client: request.client,
    presentedDigest: presented.secretDigest,
    successorDigest: digest(refreshSecret),
    successorSalt,
    accessToken: { digest: digest(accessSecret), scope: grantedScope },
  });
  if (rotated.outcome === 'lost') return 'changed';
  return {
    accessToken: formatAccessToken(family.familyId, accessSecret),
    expiresInSeconds: rotated.accessTokenExpiresInSeconds,
    refreshToken: {
      text: formatRefreshToken(family.familyId, presented.lineage, refreshSecret),
      expiresInSeconds: rotated.refreshTokenExpiresInSeconds,
    },
    grantedScope,
    event: 'refresh',
    clientId: request.client.clientId,
    familyId: family.familyId,
    subject: family.subject,
  };
}

/**
 * Answers the retry of a lost response: the same successor again.
 *
 * The access token of the rotation is read and never written again, so that one which was revoked
 * stays revoked; where it cannot be given a new one is.
 */
async function retry(
  tokens: TokenStore,
  request: AuthenticatedTokenRequest,
  presented: PresentedRefreshToken,
  { family, rotation }: { family: TokenFamily; rotation: FamilyRotation },
): Promise<IssuedTokens | 'changed'> {
  const { client } = request;
  const { familyId, subject } = family;
  const grantedScope = grantScope(request.requestedScope, family.scope);
  const { refreshSecret, accessSecret } = deriveSuccessor(rotation.successorSalt, presented.secret);
  const currentDigest = digest(refreshSecret);
  if (!isCurrent(family, currentDigest)) {
    throw new TemporarilyUnavailable('derived successor is not the stored one: damaged family');
  }
  const again = await tokens.lookUp({
    clientId: client.clientId,
    token: presented,
    accessTokenDigest: digest(accessSecret),
  });
  if (again.family === undefined || !isCurrent(again.family, currentDigest)) return 'changed';
  const decision = decideRefresh(again.family, presented, client.key, again.pulse, again.now);
  if (decision.kind !== 'retry') return 'changed';

  const answer = {
    refreshToken: {
      text: formatRefreshToken(familyId, presented.lineage, refreshSecret),
      expiresInSeconds: Math.floor(
        (again.family.idleExpiresAt.getTime() - again.now.getTime()) / 1000,
      ),
    },
    grantedScope,
    event: 'refresh_retry',
    clientId: client.clientId,
    familyId,
    subject,
  } as const;
  const { accessToken } = again;
  const secondsLeft = Math.floor(
    ((accessToken?.expiresAt.getTime() ?? 0) - again.now.getTime()) / 1000,
  );
  const isReusable =
    accessToken !== undefined &&
    secondsLeft >= 1 &&
    isWithinScope(accessToken.scope, grantedScope) &&
    isWithinScope(grantedScope, accessToken.scope);
  if (isReusable) {
    return {
      ...answer,
      accessToken: formatAccessToken(familyId, accessSecret),
      expiresInSeconds: secondsLeft,
    };
  }
  const freshSecret = generateSecret();
  const issued = await tokens.issueAdditionalAccessToken({
    familyId,
    client,
    currentDigest,
    accessToken: { digest: digest(freshSecret), scope: grantedScope },
  });
  if (issued.outcome === 'lost') return 'changed';
  return {
    ...answer,
    accessToken: formatAccessToken(familyId, freshSecret),
    expiresInSeconds: issued.accessTokenExpiresInSeconds,
  };
}

const isCurrent = (family: TokenFamily, currentDigest: Buffer): boolean =>
  family.lineage !== undefined && isSameDigest(family.lineage.currentDigest, currentDigest);
