/** The clients of `peer-oidc-provider.js`, as the library describes them: rows of its database, or its configuration. */
import { apiClient, webClient } from './families.ts';

const metadataOf = (client: { id: string; secret: string }, grantTypes: readonly string[]) => ({
  client_id: client.id,
  client_secret: client.secret,
  grant_types: grantTypes,
  redirect_uris: [],
  response_types: [],
  token_endpoint_auth_method: 'client_secret_basic',
});

export const oidcClients = [
  metadataOf(webClient, ['password', 'refresh_token']),
  metadataOf(apiClient, []),
];
