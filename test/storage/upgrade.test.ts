/** A database that an earlier version has filled: what was good stays good. */
import { MikroORM } from '@mikro-orm/postgresql';
import t from 'tap';
import {
  digest,
  formatAccessToken,
  generateFamilyId,
  generateSecret,
} from '../../src/oauth/opaque-token.ts';
import { migrate } from '../../src/storage/migrate.ts';
import { ormConfig } from '../../src/storage/orm.ts';
import { createTestDatabase } from '../support/database.ts';
import { introspect } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

/** The last version in which access tokens had a table of their own. */
const WITH_ACCESS_TOKEN_TABLE = 'Migration20261121120000';

const api = { id: 'api', secret: 'the secret of an earlier version' };

t.test('access tokens of before the upgrade are as good as they were', async (t) => {
  const database = await createTestDatabase(t, 'template0');
  const { url, inspect } = database;
  const orm = new MikroORM(
    ormConfig({ databaseUrl: url, maximumConnections: 1, acquireTimeoutSeconds: 5 }),
  );
  await orm.migrator.up({ to: WITH_ACCESS_TOKEN_TABLE });
  await orm.close(true);

  const familyId = generateFamilyId();
  const tokens = { live: generateSecret(), expired: generateSecret(), revoked: generateSecret() };
  const others = Array.from({ length: 20 }, generateSecret);
  await inspect.query(
    `insert into client (
       client_id, client_type, grant_types, scope, introspection_right, audience, origins, delivery
     ) values ('api', 'confidential', '{}', '{}', 'own', '{}', '{}', 'body')`,
  );
  await inspect.query(
    `insert into client_secret (client_key, digest) select key, sha256($1::bytea) from client`,
    [Buffer.from(api.secret)],
  );
  await inspect.query(
    `insert into token_family (
       id, client_key, scope, audience, started_at, idle_expires_at, expires_at
     )
     select $1, key, 'read', '{}', now() - interval '1 hour', now() + interval '1 day', now() + interval '1 day'
     from client`,
    [familyId],
  );
  const instants = `date_trunc('second', now())`;
  await inspect.query(
    `insert into access_token (family_id, digest, scope, issued_at, expires_at, revoked_at) values
       ($1, $2, 'read', ${instants}, ${instants} + interval '10 minutes', null),
       ($1, $3, 'read', ${instants} - interval '1 hour', ${instants}, null),
       ($1, $4, 'read', ${instants}, ${instants} + interval '10 minutes', now())`,
    [familyId, ...Object.values(tokens).map(digest)],
  );
  for (const secret of others) {
    await inspect.query(
      `insert into access_token (family_id, digest, scope, issued_at, expires_at)
       values ($1, $2, 'read', now() - interval '1 minute', now() + interval '1 minute')`,
      [familyId, digest(secret)],
    );
  }

  t.strictSame((await migrate(url)).length > 0, true);
  const server = await startServer(t, { database });
  const ask = (secret: Buffer) => introspect(server, api, formatAccessToken(familyId, secret));
  const { body } = await ask(tokens.live);
  t.match(body, { active: true, scope: 'read', client_id: 'api' });
  t.equal(body.exp - body.iat, 600);
  t.strictSame((await ask(tokens.expired)).body, { active: false });
  t.strictSame((await ask(tokens.revoked)).body, { active: false });
  const { rows } = await inspect.query(
    'select cardinality(access_tokens) as kept from token_family',
  );
  t.strictSame(rows, [{ kept: 16 }], 'the newest, where there are too many');
});
