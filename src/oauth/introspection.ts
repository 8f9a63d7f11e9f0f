/** Token introspection, RFC 7662. */
import type { Client } from './client.ts';
import { isSameDigest, type PresentedToken } from './opaque-token.ts';
import type { LookUp } from './ports.ts';
import type { Scope } from './scope.ts';
import { causeOfDeath, type TokenFamily } from './token-family.ts';

/** An inactive token carries no claim at all (RFC 7662 §2.2). */
export type Introspection = { readonly active: false } | ActiveIntrospection;

/** What the caller may know of a good token; names as in RFC 7662 §2.2. */
export interface ActiveIntrospection {
  readonly active: true;
  /** Undefined for a refresh token, which is good at no resource server. */
  readonly tokenType: 'Bearer' | undefined;
  readonly scope: Scope;
  readonly clientId: string;
  readonly subject: string | undefined;
  readonly audience: readonly string[];
  readonly issuedAt: Date;
  readonly expiresAt: Date;
}

const inactive: Introspection = { active: false };

/**
 * Decides what the calling client may learn about a token.
 *
 * A refresh token is shown to its own client only: shown to a resource server it could pass for an
 * access token.
 *
 * @see RFC 7662 §2.2, §4
 */
export function decideIntrospection(
  presented: PresentedToken | undefined,
  caller: Client,
  { family, accessToken, now }: LookUp,
): Introspection {
  if (presented === undefined || family === undefined) return inactive;
  if (causeOfDeath(family, now) !== undefined) return inactive;
  if (!maySee(caller, presented.kind, family)) return inactive;
  if (presented.kind === 'access_token') {
    if (accessToken === undefined || accessToken.expiresAt <= now) return inactive;
    return {
      ...common(family),
      tokenType: 'Bearer',
      scope: accessToken.scope,
      issuedAt: accessToken.issuedAt,
      expiresAt: accessToken.expiresAt,
    };
  }
  const { lineage } = family;
  if (lineage === undefined || family.idleExpiresAt <= now) return inactive;
  // Both comparisons: whoever guessed a current secret without the lineage never held a token.
  if (!isSameDigest(presented.lineageDigest, lineage.lineageDigest)) return inactive;
  if (!isSameDigest(presented.secretDigest, lineage.currentDigest)) return inactive;
  return {
    ...common(family),
    tokenType: undefined,
    scope: family.scope,
    issuedAt: lineage.rotation?.rotatedAt ?? family.startedAt,
    expiresAt: family.idleExpiresAt,
  };
}

const common = (family: TokenFamily) =>
  ({
    active: true,
    clientId: family.clientId,
    subject: family.subject,
    audience: family.audience,
  }) as const;

function maySee(caller: Client, kind: PresentedToken['kind'], family: TokenFamily): boolean {
  if (caller.introspectionRight === 'none') return false;
  if (family.clientKey === caller.key) return true;
  if (kind === 'refresh_token') return false;
  return (
    caller.introspectionRight === 'any' ||
    family.audience.some((audience) => caller.audience.includes(audience))
  );
}
