/** Reads how a request says who its client is, RFC 6749 §2.3.1. Decides nothing about it. */
import { isUtf8 } from 'node:buffer';
import { hasControlCharacters } from '../oauth/characters.ts';
import type { PresentedClientCredentials } from '../oauth/client-authentication.ts';
import { invalidClient, invalidRequest } from '../oauth/errors.ts';
import { decodeFormComponent } from './form.ts';

/** Body parameters that take part in client authentication. */
export const clientCredentialParameters = [
  'client_id',
  'client_secret',
  'client_assertion',
  'client_assertion_type',
] as const;

export type ClientCredentialParameters = Partial<
  Record<(typeof clientCredentialParameters)[number], string>
>;

/**
 * Reads the credentials of one method; undefined if the request names no client at all.
 *
 * A header that is present and not understood is refused and never passed over: falling back to the
 * body would let a confidential client be taken for a public one.
 *
 * @throws OAuthError `invalid_request` for more than one method (RFC 6749 §2.3) or two client ids;
 *   `invalid_client` for a header that holds no Basic credentials
 */
export function readClientCredentials(
  authorization: string | undefined,
  body: ClientCredentialParameters,
): PresentedClientCredentials | undefined {
  if (authorization === undefined) return credentialsInBody(body);
  if (body.client_secret !== undefined || body.client_assertion !== undefined) {
    throw invalidRequest('more than one client authentication method');
  }
  const { clientId, clientSecret } = parseBasic(authorization);
  if (body.client_id !== undefined && body.client_id !== clientId) {
    throw invalidRequest('client_id differs from the Authorization header');
  }
  // What Swagger UI and many libraries send for a public client (RFC 6749 §2.3.1 allows an empty secret).
  if (clientSecret === '') return { method: 'none', clientId };
  return { method: 'client_secret_basic', clientId, clientSecret };
}

function credentialsInBody(
  body: ClientCredentialParameters,
): PresentedClientCredentials | undefined {
  if (body.client_assertion !== undefined) throw invalidClient('assertions are not supported');
  const { client_id: clientId, client_secret: clientSecret } = body;
  if (clientId === undefined) return undefined;
  if (clientSecret === undefined) return { method: 'none', clientId };
  return { method: 'client_secret_post', clientId, clientSecret };
}

const basicHeader = /^basic +([A-Za-z0-9+/]+={0,2})$/i;

/** RFC 7617 §2, with both parts form-urlencoded first (RFC 6749 §2.3.1). */
function parseBasic(authorization: string): { clientId: string; clientSecret: string } {
  const encoded = basicHeader.exec(authorization)?.[1];
  if (encoded === undefined) throw invalidClient('Authorization header is not Basic');
  const decoded = Buffer.from(encoded, 'base64');
  if (!isUtf8(decoded)) throw invalidClient('Basic credentials are not UTF-8');
  const pair = decoded.toString('utf8');
  const colon = pair.indexOf(':');
  if (colon === -1) throw invalidClient('Basic credentials have no colon');
  const clientId = decodeFormComponent(pair.slice(0, colon));
  const clientSecret = decodeFormComponent(pair.slice(colon + 1));
  if (clientId === undefined || clientId === '' || clientSecret === undefined) {
    throw invalidClient('Basic credentials are malformed');
  }
  if (hasControlCharacters(clientId)) {
    throw invalidClient('Basic credentials hold control characters');
  }
  return { clientId, clientSecret };
}
