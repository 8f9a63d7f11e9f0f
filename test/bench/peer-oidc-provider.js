/**
 * node-oidc-provider on PostgreSQL, as its documentation says: an adapter for all models that are used
 * (docs, "adapter"), a grant of one's own for passwords ("Custom Grant Types"), introspection and
 * revocation switched on, refresh tokens rotated.
 *
 * Clients are rows: the library asks the adapter for every client that its configuration does not name
 * ("clients"). `findAccount` looks the person up: the server must be able to locate an account
 * ("Accounts"), and the default is a placeholder that a deployment must replace ("findAccount"). So a
 * client's new secret counts from the next request on and a person's end from the next refresh. Each
 * look-up is a round trip of its own, and an introspection makes one for the caller and one for the
 * token's client, where Heirloom reads everything at once.
 *
 * With `STATIC=on` clients are configured, which keeps them as they are until the server ends, and
 * `findAccount` takes every id for an account, as the placeholder does. That favours the library: an
 * introspection reads neither client, a refresh neither client nor account.
 *
 * In both configurations an introspection asks for no account, where Heirloom looks whether the person is
 * disabled; client secrets are kept and compared in clear; no ID token is asked for, and every statement
 * is prepared.
 */
import { generateKeyPairSync } from 'node:crypto';
import { createServer } from 'node:http';
import argon2 from 'argon2';
import { errors, Provider } from 'oidc-provider';
import pg from 'pg';
import { SCOPE } from './families.ts';
import { oidcClients } from './oidc-clients.ts';

const isStatic = process.env.STATIC === 'on';

/** As many connections as Heirloom has, and kept as long. */
const pool = new pg.Pool({
  connectionString: process.env.DATABASE_URL,
  max: 10,
  idleTimeoutMillis: 300_000,
});
const run = (name, text, values) => pool.query({ name, text, values });

const tables = {
  Client: 'oidc_client',
  AccessToken: 'oidc_access_token',
  RefreshToken: 'oidc_refresh_token',
  Grant: 'oidc_grant',
};

/** The seven methods of the adapter's interface; three are for what is switched off here. */
const createAdapter = (model) => {
  const table = tables[model];
  const named = (action, text, values) => run(`${action}-${table}`, text, values);
  const unused = async () => {
    throw new Error(`${model} is not stored here`);
  };
  return {
    async upsert(id, payload, expiresIn) {
      await named(
        'upsert',
        `insert into ${table} (id, payload, grant_id, expires_at)
         values ($1, $2, $3, now() + $4 * interval '1 second')
         on conflict (id) do update set
           payload = excluded.payload, grant_id = excluded.grant_id, expires_at = excluded.expires_at`,
        [id, payload, payload.grantId ?? null, expiresIn],
      );
    },
    async find(id) {
      const { rows } = await named(
        'find',
        `select payload, consumed_at from ${table} where id = $1 and expires_at > now()`,
        [id],
      );
      const [row] = rows;
      if (row === undefined) return undefined;
      return row.consumed_at === null
        ? row.payload
        : { ...row.payload, consumed: Math.floor(row.consumed_at.getTime() / 1000) };
    },
    async consume(id) {
      await named('consume', `update ${table} set consumed_at = now() where id = $1`, [id]);
    },
    async destroy(id) {
      await named('destroy', `delete from ${table} where id = $1`, [id]);
    },
    async revokeByGrantId(grantId) {
      await named('revoke', `delete from ${table} where grant_id = $1`, [grantId]);
    },
    findByUid: unused,
    findByUserCode: unused,
  };
};

/** The password grant that the library leaves to its users. */
async function passwordGrant(ctx) {
  const { client, params, provider } = ctx.oidc;
  const { rows } = await run(
    'find-person',
    'select id, password_hash from person where username = $1',
    [params.username],
  );
  const [person] = rows;
  if (person === undefined || !(await argon2.verify(person.password_hash, params.password))) {
    throw new errors.InvalidGrant('wrong credentials');
  }
  const of = { accountId: person.id, clientId: client.clientId };
  const grant = new provider.Grant(of);
  grant.addOIDCScope(SCOPE);
  const grantId = await grant.save();
  const token = { accountId: person.id, client, grantId, gty: 'password', scope: SCOPE };
  const accessToken = new provider.AccessToken(token);
  const refreshToken = new provider.RefreshToken({ ...token, rotations: 0 });
  ctx.body = {
    access_token: await accessToken.save(),
    expires_in: accessToken.expiration,
    refresh_token: await refreshToken.save(),
    scope: SCOPE,
    token_type: accessToken.tokenType,
  };
}

const accountOf = (id) => ({ accountId: id, claims: async () => ({ sub: id }) });

/** A person who is gone has no account, and refreshes nothing. */
async function lookUpAccount(_ctx, id) {
  const { rows } = await run('find-account', 'select id from person where id = $1', [id]);
  return rows.length === 0 ? undefined : accountOf(id);
}

const clientsAndAccounts = isStatic
  ? { clients: oidcClients, findAccount: async (_ctx, id) => accountOf(id) }
  : { findAccount: lookUpAccount };
const signingKey = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey;

const provider = new Provider('http://127.0.0.1', {
  adapter: createAdapter,
  ...clientsAndAccounts,
  // Without `offline_access` among them there is no refresh token grant.
  scopes: [...SCOPE.split(' '), 'offline_access'],
  cookies: { keys: ['for interactions that never happen here'] },
  jwks: { keys: [signingKey.export({ format: 'jwk' })] },
  rotateRefreshToken: true,
  ttl: { AccessToken: 900, RefreshToken: 604_800, Grant: 2_592_000 },
  features: {
    introspection: { enabled: true },
    revocation: { enabled: true },
    devInteractions: { enabled: false },
    userinfo: { enabled: false },
    rpInitiatedLogout: { enabled: false },
  },
});
provider.registerGrantType('password', passwordGrant, ['username', 'password', 'scope']);
provider.on('server_error', (_ctx, error) => console.error(error));

const server = createServer(provider.callback());
server.listen(0, '127.0.0.1', () => {
  console.log(`oidc-provider listening on http://127.0.0.1:${server.address().port}`);
});
process.on('SIGTERM', () => process.exit(0));
