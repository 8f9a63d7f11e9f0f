/** Two independent client libraries, unmodified, complete the whole life of a session. */
import * as oauth from 'oauth4webapi';
import * as openid from 'openid-client';
import t from 'tap';
import { ALICE_PASSWORD, createCast } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t);
const cast = await createCast(server);
const credentials = { username: 'alice', password: ALICE_PASSWORD };

t.test('oauth4webapi discovers, logs in, refreshes, introspects and revokes', async (t) => {
  const insecure = { [oauth.allowInsecureRequests]: true };
  const issuer = new URL(server.url);
  const discovery = await oauth.discoveryRequest(issuer, { algorithm: 'oauth2', ...insecure });
  const as = await oauth.processDiscoveryResponse(issuer, discovery);
  const client: oauth.Client = { client_id: cast.c1.id };

  for (const method of [oauth.ClientSecretBasic, oauth.ClientSecretPost]) {
    const authentication = method(cast.c1.secret);
    const login = await oauth.genericTokenEndpointRequest(
      as,
      client,
      authentication,
      'password',
      new URLSearchParams(credentials),
      insecure,
    );
    const first = await oauth.processGenericTokenEndpointResponse(as, client, login);
    t.equal(first.token_type, 'bearer');
    t.equal(first.expires_in, 900);

    const refresh = await oauth.refreshTokenGrantRequest(
      as,
      client,
      authentication,
      first.refresh_token as string,
      insecure,
    );
    const second = await oauth.processRefreshTokenResponse(as, client, refresh);
    t.not(second.refresh_token, first.refresh_token);

    const introspect = async (token: string) => {
      const response = await oauth.introspectionRequest(
        as,
        client,
        authentication,
        token,
        insecure,
      );
      return oauth.processIntrospectionResponse(as, client, response);
    };
    t.match(await introspect(second.access_token), {
      active: true,
      iss: server.url,
      sub: cast.aliceSubject,
      client_id: cast.c1.id,
    });

    const revocation = await oauth.revocationRequest(
      as,
      client,
      authentication,
      second.refresh_token as string,
      insecure,
    );
    t.equal(await oauth.processRevocationResponse(revocation), undefined);
    t.strictSame(await introspect(second.access_token), { active: false });

    const dead = await oauth.refreshTokenGrantRequest(
      as,
      client,
      authentication,
      second.refresh_token as string,
      insecure,
    );
    const refusal = await oauth
      .processRefreshTokenResponse(as, client, dead)
      .catch((error) => error);
    t.match(refusal, { error: 'invalid_grant', status: 400 });
  }

  const wrong = await oauth.genericTokenEndpointRequest(
    as,
    client,
    oauth.ClientSecretBasic('wrong'),
    'password',
    new URLSearchParams(credentials),
    insecure,
  );
  const challenge = await oauth
    .processGenericTokenEndpointResponse(as, client, wrong)
    .catch((error) => error);
  t.match(challenge, { cause: [{ scheme: 'basic', parameters: { realm: 'heirloom' } }] });
});

t.test('openid-client discovers, logs in, refreshes, introspects and revokes', async (t) => {
  const config = await openid.discovery(
    new URL(server.url),
    cast.c1.id,
    cast.c1.secret,
    openid.ClientSecretBasic(cast.c1.secret),
    { algorithm: 'oauth2', execute: [openid.allowInsecureRequests] },
  );
  const first = await openid.genericGrantRequest(config, 'password', credentials);
  const second = await openid.refreshTokenGrant(config, first.refresh_token as string);
  t.match(await openid.tokenIntrospection(config, second.access_token), { active: true });
  await openid.tokenRevocation(config, second.refresh_token as string);
  t.strictSame(await openid.tokenIntrospection(config, second.access_token), { active: false });
  const refusal = await openid
    .refreshTokenGrant(config, second.refresh_token as string)
    .catch((error) => error);
  t.match(refusal, { error: 'invalid_grant' });
});

t.test('openid-client as a public client logs in and refreshes', async (t) => {
  const config = await openid.discovery(new URL(server.url), cast.p1.id, undefined, openid.None(), {
    algorithm: 'oauth2',
    execute: [openid.allowInsecureRequests],
  });
  const first = await openid.genericGrantRequest(config, 'password', {
    ...credentials,
    scope: 'read',
  });
  t.equal(first.scope, 'read');
  const second = await openid.refreshTokenGrant(config, first.refresh_token as string);
  t.equal(second.scope, 'read');
});
