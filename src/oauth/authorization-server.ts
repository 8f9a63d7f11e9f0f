/** The core's only door: what the endpoints do, with the order of checks written once. RFC 6749 §3.2. */
import type { Client, GrantType } from './client.ts';
import { authenticateClient, type PresentedClientCredentials } from './client-authentication.ts';
import {
  invalidClient,
  invalidRequest,
  unauthorizedClient,
  unsupportedGrantType,
} from './errors.ts';
import type { Grant, IssuedTokens, TokenRequest } from './grants/grant.ts';
import { decideIntrospection, type Introspection } from './introspection.ts';
import { type PresentedToken, parseOpaqueToken } from './opaque-token.ts';
import type { LookUp, TokenStore } from './ports.ts';
import { decideRevocation } from './revocation.ts';
import { parseScope } from './scope.ts';

/** A request about one token: RFC 7009 §2.1 and RFC 7662 §2.1 have the same shape. */
export interface TokenInquiry {
  readonly credentials: PresentedClientCredentials | undefined;
  readonly token: string | undefined;
}

/** What a revocation did, for the log only: every answer is the same empty 200 (RFC 7009 §2.2). */
export interface Revocation {
  readonly clientId: string;
  readonly effect: 'family-revoked' | 'access-token-revoked' | 'none';
  readonly familyId: string | undefined;
}

export interface AuthorizationServer {
  /** The grant types that are switched on, as RFC 8414 announces them. */
  readonly grantTypes: readonly GrantType[];
  /**
   * Answers `POST /token`.
   *
   * @throws OAuthError as RFC 6749 §5.2 says; TemporarilyUnavailable when the fault is ours
   */
  token(request: TokenRequest): Promise<IssuedTokens>;
  /**
   * Answers `POST /revoke`. Returns only after the revocation is durable.
   *
   * @throws OAuthError `invalid_request`, `invalid_client`, or `invalid_grant` for another client's token
   */
  revoke(inquiry: TokenInquiry): Promise<Revocation>;
  /**
   * Answers `POST /introspect` from what the database says after the request arrived.
   *
   * @throws OAuthError `invalid_request` or `invalid_client`
   */
  introspect(inquiry: TokenInquiry): Promise<Introspection>;
}

/** Builds the server from its grants, in the order in which they are announced. */
export function createAuthorizationServer(
  tokens: TokenStore,
  grants: readonly Grant[],
): AuthorizationServer {
  return {
    grantTypes: grants.map(({ grantType }) => grantType),

    async token(request) {
      const grant = grants.find(({ grantType }) => grantType === request.grantType);
      // Only the refresh token grant has a token to read; a stray parameter of another grant is ignored.
      const presentedToken =
        grant?.grantType === 'refresh_token' ? parse(request.refreshToken) : undefined;
      const lookUp = await lookUpFor(tokens, request.credentials, presentedToken);
      const client = requireClient(tokens, request.credentials, lookUp);
      if (grant === undefined)
        throw unsupportedGrantType('unknown grant type', { clientId: client.clientId });
      if (!client.grantTypes.has(grant.grantType)) {
        throw unauthorizedClient(`client has no ${grant.grantType} grant`, {
          clientId: client.clientId,
        });
      }
      const requestedScope = request.scope === undefined ? undefined : parseScope(request.scope);
      return grant.issue({ ...request, client, requestedScope, presentedToken, lookUp });
    },

    async revoke({ credentials, token }) {
      const presented = parse(token);
      const lookUp = await lookUpFor(tokens, credentials, presented);
      const client = requireClient(tokens, credentials, lookUp);
      if (token === undefined) throw invalidRequest('token is missing');
      const { clientId } = client;
      const decision = decideRevocation(presented, client, lookUp);
      switch (decision.kind) {
        case 'nothing-to-revoke':
          return { clientId, effect: 'none', familyId: undefined };
        case 'revoke-family': {
          const { familyId } = decision;
          const ended = await tokens.revokeFamily(familyId, 'revoked');
          return { clientId, effect: ended ? 'family-revoked' : 'none', familyId };
        }
        case 'revoke-access-token': {
          const { familyId } = decision;
          const isNew = await tokens.revokeAccessToken(familyId, decision.digest);
          return { clientId, effect: isNew ? 'access-token-revoked' : 'none', familyId };
        }
      }
    },

    async introspect({ credentials, token }) {
      const presented = parse(token);
      const lookUp = await lookUpFor(tokens, credentials, presented);
      const caller = requireClient(tokens, credentials, lookUp);
      // RFC 7662 §4: the caller must be authenticated, and a public client cannot be.
      if (caller.clientType === 'public')
        throw invalidClient('public client introspects', { clientId: caller.clientId });
      if (token === undefined) throw invalidRequest('token is missing');
      return decideIntrospection(presented, caller, lookUp);
    },
  };
}

const parse = (token: string | undefined): PresentedToken | undefined =>
  token === undefined ? undefined : parseOpaqueToken(token);

const lookUpFor = (
  tokens: TokenStore,
  credentials: PresentedClientCredentials | undefined,
  token: PresentedToken | undefined,
): Promise<LookUp> => tokens.lookUp({ clientId: credentials?.clientId, token });

function requireClient(
  tokens: TokenStore,
  credentials: PresentedClientCredentials | undefined,
  lookUp: LookUp,
): Client {
  const authentication = authenticateClient(credentials, lookUp.client);
  if (authentication.outcome === 'failed') {
    throw invalidClient(authentication.detail, {
      event: 'client_authentication_failed',
      clientId: credentials?.clientId,
    });
  }
  const { client, secretDigest } = authentication;
  if (secretDigest !== undefined) tokens.noteSecretUse(client, secretDigest);
  return client;
}
