/** Token revocation, RFC 7009. */
import type { Client } from './client.ts';
import { invalidGrant } from './errors.ts';
import { isSameDigest, type PresentedToken } from './opaque-token.ts';
import type { LookUp } from './ports.ts';

/** What a revocation request means. Only the first two change anything. */
export type RevocationDecision =
  | { readonly kind: 'revoke-family'; readonly familyId: string }
  | { readonly kind: 'revoke-access-token'; readonly familyId: string; readonly digest: Buffer }
  | { readonly kind: 'nothing-to-revoke'; readonly detail: string };

/**
 * Decides what to revoke.
 *
 * A refresh token of the right lineage, current or spent, ends its family: a client that lost the
 * last response must still be able to log out. An access token ends only itself, or every resource
 * server that sees one could end sessions. A hint is never needed, since the text tells the kind.
 *
 * @throws OAuthError `invalid_grant` for another client's token, when the caller is confidential; a
 *   public caller is told nothing, because anybody can claim its name
 * @see RFC 7009 §2.1, §2.2
 */
export function decideRevocation(
  presented: PresentedToken | undefined,
  client: Client,
  { family, accessToken }: LookUp,
): RevocationDecision {
  if (presented === undefined) return nothing('malformed token');
  if (family === undefined) return nothing('no such family');
  const isGenuine =
    presented.kind === 'access_token'
      ? accessToken !== undefined
      : family.lineage !== undefined &&
        isSameDigest(presented.lineageDigest, family.lineage.lineageDigest);
  if (!isGenuine) return nothing('unknown token');
  const { familyId } = family;
  if (family.clientKey !== client.key) {
    if (client.clientType === 'public') return nothing('token of another client');
    throw invalidGrant('token of another client', { familyId });
  }
  return presented.kind === 'access_token'
    ? { kind: 'revoke-access-token', familyId, digest: presented.secretDigest }
    : { kind: 'revoke-family', familyId };
}

const nothing = (detail: string): RevocationDecision => ({ kind: 'nothing-to-revoke', detail });
