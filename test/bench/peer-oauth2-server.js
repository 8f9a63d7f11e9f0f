/**
 * @node-oauth/oauth2-server on PostgreSQL, behind the Express adapter that its documentation strongly
 * recommends: the password and refresh token grants over a model, and a route that `authenticate()`
 * guards, which is the nearest to introspection that it has. It authenticates no caller there.
 */
import OAuthServer from '@node-oauth/express-oauth-server';
import argon2 from 'argon2';
import express from 'express';
import pg from 'pg';
import { SCOPE, sha256 } from './families.ts';

/** As many connections as Heirloom has, and kept as long. */
const pool = new pg.Pool({
  connectionString: process.env.DATABASE_URL,
  max: 10,
  idleTimeoutMillis: 300_000,
});
const first = async (name, text, values) => (await pool.query({ name, text, values })).rows[0];

const model = {
  async getClient(clientId, clientSecret) {
    const row = await first(
      'get-client',
      'select id, grants from client where id = $1 and secret_digest = $2',
      [clientId, sha256(clientSecret)],
    );
    return row && { id: row.id, grants: row.grants };
  },
  async getUser(username, password) {
    const row = await first(
      'get-user',
      'select id, password_hash from person where username = $1',
      [username],
    );
    const isRight = row !== undefined && (await argon2.verify(row.password_hash, password));
    return isRight && { id: row.id };
  },
  async getAccessToken(accessToken) {
    const row = await first(
      'get-access-token',
      `select access_token_expires_at, scope, client_id, person_id
       from token where access_token = $1`,
      [accessToken],
    );
    return (
      row && {
        accessToken,
        accessTokenExpiresAt: row.access_token_expires_at,
        scope: row.scope,
        client: { id: row.client_id },
        user: { id: row.person_id },
      }
    );
  },
  async getRefreshToken(refreshToken) {
    const row = await first(
      'get-refresh-token',
      `select refresh_token_expires_at, scope, client_id, person_id
       from token where refresh_token = $1`,
      [refreshToken],
    );
    return (
      row && {
        refreshToken,
        refreshTokenExpiresAt: row.refresh_token_expires_at,
        scope: row.scope,
        client: { id: row.client_id },
        user: { id: row.person_id },
      }
    );
  },
  async revokeToken({ refreshToken }) {
    const text = 'delete from token where refresh_token = $1 returning true as is_revoked';
    return (await first('revoke-token', text, [refreshToken])) !== undefined;
  },
  async saveToken(token, client, user) {
    await first(
      'save-token',
      `insert into token (
         access_token, access_token_expires_at, refresh_token, refresh_token_expires_at,
         scope, client_id, person_id
       ) values ($1, $2, $3, $4, $5, $6, $7)`,
      [
        token.accessToken,
        token.accessTokenExpiresAt,
        token.refreshToken,
        token.refreshTokenExpiresAt,
        token.scope,
        client.id,
        user.id,
      ],
    );
    return { ...token, client: { id: client.id }, user };
  },
  validateScope: async () => SCOPE.split(' '),
};

const oauth = new OAuthServer({ model, accessTokenLifetime: 900, refreshTokenLifetime: 604_800 });
const app = express();
app.use(express.urlencoded({ extended: false }));
app.post('/token', oauth.token());
app.get('/resource', oauth.authenticate(), (_request, response) => {
  const { token } = response.locals.oauth;
  response.json({
    active: true,
    client_id: token.client.id,
    sub: token.user.id,
    scope: token.scope.join(' '),
    exp: Math.floor(token.accessTokenExpiresAt.getTime() / 1000),
  });
});

const server = app.listen(0, '127.0.0.1', () => {
  console.log(`oauth2-server listening on http://127.0.0.1:${server.address().port}`);
});
process.on('SIGTERM', () => process.exit(0));
