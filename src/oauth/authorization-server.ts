/** The core's only door: what the endpoints do, with the order of checks written once. RFC 6749 §3.2. */
import type { Client, GrantType } from './client.ts';
import {
  type ClientRequest,
  createClientAuthenticator,
  type PresentedClientCredentials,
} from './client-authentication.ts';
import {
  acceptForRevocation,
  acceptRefreshToken,
  assertOwnApp,
  type BrowserRequest,
  candidateRefreshToken,
} from './cookie-delivery.ts';
import {
  invalidClient,
  invalidRequest,
  unauthorizedClient,
  unsupportedGrantType,
} from './errors.ts';
import type { Grant, IssuedTokens, TokenRequest } from './grants/grant.ts';
import { decideIntrospection, type Introspection } from './introspection.ts';
import { type PresentedToken, parseOpaqueToken } from './opaque-token.ts';
import type { FailureCounters, LookUp, TokenStore } from './ports.ts';
import { decideRevocation } from './revocation.ts';
import { parseScope } from './scope.ts';
import { isHeldBy } from './token-family.ts';

/** A request about one token: RFC 7009 §2.1 and RFC 7662 §2.1 have the same shape. */
export interface TokenInquiry extends ClientRequest {
  readonly token: string | undefined;
}

/** RFC 7009 §2.1, as it may come from a browser. */
export interface RevocationRequest extends TokenInquiry {
  readonly browser: BrowserRequest;
  /** This and the next: see `TokenRequest`. */
  readonly noteClient: TokenRequest['noteClient'];
  readonly checkLimit: TokenRequest['checkLimit'];
}

/** What a revocation did, for the log only: every answer is the same 200 (RFC 7009 §2.2). */
export interface Revocation {
  readonly clientId: string;
  readonly effect: 'family-revoked' | 'access-token-revoked' | 'none';
  readonly familyId: string | undefined;
  /** The token came in the cookie, which is of no use any more. */
  readonly isCookieSpent: boolean;
}

/** The protocol, whatever carries it. What a method throws beside what it names is a bug. */
export interface AuthorizationServer {
  /** The grant types that are switched on, as RFC 8414 announces them. */
  readonly grantTypes: readonly GrantType[];
  /**
   * Answers `POST /token`.
   *
   * @throws OAuthError as RFC 6749 §5.2 says; TooManyFailures; TemporarilyUnavailable when the fault is ours
   */
  token(request: TokenRequest): Promise<IssuedTokens>;
  /**
   * Answers `POST /revoke`. Returns only after the revocation is durable.
   *
   * @throws OAuthError `invalid_request`, `invalid_client`, `access_denied`, or `invalid_grant` for another
   *   client's token; TooManyFailures; TemporarilyUnavailable
   */
  revoke(request: RevocationRequest): Promise<Revocation>;
  /**
   * Answers `POST /introspect` from what the database says after the request arrived.
   *
   * @throws OAuthError `invalid_request` or `invalid_client`; TooManyFailures; TemporarilyUnavailable
   */
  introspect(inquiry: TokenInquiry): Promise<Introspection>;
}

/** Builds the server from its grants, in the order in which they are announced. */
export function createAuthorizationServer(
  { tokens, failures }: { readonly tokens: TokenStore; readonly failures: FailureCounters },
  grants: readonly Grant[],
  { isCookieDeliverySafe }: { readonly isCookieDeliverySafe: boolean },
): AuthorizationServer {
  const requireClient = createClientAuthenticator(tokens, failures);
  const issueTokens = async (
    grant: Grant | undefined,
    request: TokenRequest,
  ): Promise<IssuedTokens> => {
    // Only the refresh token grant has a token to read; a stray parameter of another grant is ignored.
    const { browser } = request;
    const presentedToken =
      grant?.grantType === 'refresh_token'
        ? parse(candidateRefreshToken(request.refreshToken, browser))
        : undefined;
    const lookUp = await lookUpFor(tokens, request.credentials, presentedToken);
    const network = () => request.origin.network;
    const client = await requireClient({ ...request, network }, lookUp);
    request.noteClient(client);
    assertOwnApp(client, browser, isCookieDeliverySafe);
    if (grant === undefined)
      throw unsupportedGrantType('unknown grant type', { clientId: client.clientId });
    if (!client.grantTypes.has(grant.grantType)) {
      throw unauthorizedClient(`client has no ${grant.grantType} grant`, {
        clientId: client.clientId,
      });
    }
    await request.checkLimit(client, heldFamilyId(client, presentedToken, lookUp));
    const requestedScope = request.scope === undefined ? undefined : parseScope(request.scope);
    const refreshToken =
      grant.grantType === 'refresh_token'
        ? acceptRefreshToken(client, request.refreshToken, browser)
        : undefined;
    return grant.issue({
      ...request,
      refreshToken,
      client,
      requestedScope,
      presentedToken,
      lookUp,
    });
  };
  return {
    grantTypes: grants.map(({ grantType }) => grantType),

    async token(request) {
      const grant = grants.find(({ grantType }) => grantType === request.grantType);
      const issue = () => issueTokens(grant, request);
      return grant?.admit === undefined ? issue() : grant.admit(issue);
    },

    async revoke(request) {
      const { credentials, token: inBody, browser } = request;
      const presented = parse(candidateRefreshToken(inBody, browser));
      const lookUp = await lookUpFor(tokens, credentials, presented);
      const client = await requireClient(request, lookUp);
      request.noteClient(client);
      assertOwnApp(client, browser, isCookieDeliverySafe);
      await request.checkLimit(client, heldFamilyId(client, presented, lookUp));
      const isRefreshToken = inBody !== undefined && presented?.kind === 'refresh_token';
      const { token, isFromCookie: isCookieSpent } = acceptForRevocation(
        client,
        { token: inBody, isRefreshToken },
        browser,
      );
      if (token === undefined) throw invalidRequest('token is missing');
      const { clientId } = client;
      const decision = decideRevocation(presented, client, lookUp);
      switch (decision.kind) {
        case 'nothing-to-revoke':
          return { clientId, effect: 'none', familyId: undefined, isCookieSpent };
        case 'revoke-family': {
          const { familyId } = decision;
          const ended = await tokens.revokeFamily(familyId, 'revoked');
          const effect = ended ? 'family-revoked' : 'none';
          return { clientId, effect, familyId, isCookieSpent };
        }
        case 'revoke-access-token': {
          const { familyId } = decision;
          const isNew = await tokens.revokeAccessToken(familyId, decision.digest);
          const effect = isNew ? 'access-token-revoked' : 'none';
          return { clientId, effect, familyId, isCookieSpent };
        }
      }
    },

    async introspect(inquiry) {
      const { credentials, token } = inquiry;
      const presented = parse(token);
      const lookUp = await lookUpFor(tokens, credentials, presented);
      const caller = await requireClient(inquiry, lookUp);
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

/** The family of a refresh token that was issued to this very client, whether it is spent or not. */
const heldFamilyId = (
  client: Client,
  token: PresentedToken | undefined,
  { family }: LookUp,
): string | undefined =>
  token?.kind === 'refresh_token' && isHeldBy(family, token, client.key)
    ? token.familyId
    : undefined;
