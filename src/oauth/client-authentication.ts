/** Client authentication, RFC 6749 §2.3: presented credentials become a client, or `invalid_client`. */
import type { Client } from './client.ts';
import { invalidClient, TooManyFailures } from './errors.ts';
import { digest, isSameDigest } from './opaque-token.ts';
import type { FailureCounters, LookUp, TokenStore } from './ports.ts';

/**
 * What a request said about its client, by exactly one method (RFC 6749 §2.3). The methods have their
 * names of RFC 8414 §2; `none` is a public client that only says who it is.
 */
export type PresentedClientCredentials =
  | { readonly method: 'none'; readonly clientId: string }
  | {
      readonly method: 'client_secret_basic' | 'client_secret_post';
      readonly clientId: string;
      readonly clientSecret: string;
    };

/** What credentials prove. `detail` is for the log: the client is told no more than `invalid_client`. */
export type ClientAuthentication =
  | {
      readonly outcome: 'authenticated';
      readonly client: Client;
      /** The digest of the secret that was shown; undefined for a public client. */
      readonly secretDigest: Buffer | undefined;
    }
  | { readonly outcome: 'failed'; readonly detail: string };

/**
 * Decides whether the presented credentials are this client's.
 *
 * A confidential client must show a secret and a public one must not (RFC 6749 §3.2.1): accepting a
 * made-up secret from a public client would let it believe that it is protected.
 *
 * @param client who was found under the presented `clientId`, if anybody
 */
export function authenticateClient(
  presented: PresentedClientCredentials | undefined,
  client: Client | undefined,
): ClientAuthentication {
  if (presented === undefined) return failed('no client identification');
  if (presented.method === 'none') {
    if (client === undefined) return failed('unknown client');
    return client.clientType === 'public'
      ? { outcome: 'authenticated', client, secretDigest: undefined }
      : failed('confidential client without a secret');
  }
  // Computed for an unknown client too, so that time does not tell whether it exists.
  const presentedDigest = digest(presented.clientSecret);
  if (client === undefined) return failed('unknown client');
  if (client.clientType === 'public') return failed('public client with a secret');
  const isRight = client.secretDigests.some((stored) => isSameDigest(presentedDigest, stored));
  return isRight
    ? { outcome: 'authenticated', client, secretDigest: presentedDigest }
    : failed('wrong client secret');
}

const failed = (detail: string): ClientAuthentication => ({ outcome: 'failed', detail });

/** What authentication needs of a request. */
export interface ClientRequest {
  readonly credentials: PresentedClientCredentials | undefined;
  /** Where it comes from, as `RequestOrigin` has it; asked for when authentication has failed. */
  readonly network: () => string;
}

/**
 * Builds the step that turns a request into its client, or refuses it.
 *
 * @throws OAuthError `invalid_client`; TooManyFailures instead, after many of them from one network
 */
export function createClientAuthenticator(
  tokens: Pick<TokenStore, 'noteSecretUse'>,
  failures: FailureCounters,
): (request: ClientRequest, lookUp: LookUp) => Client | Promise<never> {
  /** Counted after the secret was compared, so that the right one is never refused. */
  const refuse = async (
    { credentials, network }: ClientRequest,
    client: Client | undefined,
    detail: string,
  ) => {
    // A name that is nobody's may be a secret in the wrong place: it is counted, never written down.
    const clientId = client?.clientId;
    const { retryAfterSeconds, securityEvent } = await failures.countClientFailure({
      presentedName: credentials?.clientId,
      clientId,
      network: network(),
    });
    const context = { event: 'client_authentication_failed', clientId, securityEvent } as const;
    if (retryAfterSeconds === undefined) throw invalidClient(detail, context);
    throw new TooManyFailures('too many failed clients', retryAfterSeconds, context);
  };
  return (request, lookUp) => {
    const authentication = authenticateClient(request.credentials, lookUp.client);
    if (authentication.outcome === 'failed')
      return refuse(request, lookUp.client, authentication.detail);
    const { client, secretDigest } = authentication;
    if (secretDigest !== undefined) tokens.noteSecretUse(client, secretDigest);
    return client;
  };
}
