/** The database of `peer-oidc-provider.js`: a table per model, and what the library itself would store. */
import type pg from 'pg';
import { personCount, SCOPE, webClient } from './families.ts';
import { oidcClients } from './oidc-clients.ts';
import { createDatabase, personIdSql, type SeedPart, secretSql, seed, withClient } from './seed.ts';

const table = (name: string): string => `
  create table ${name} (
    id text primary key,
    payload jsonb not null,
    grant_id text,
    expires_at timestamptz not null,
    consumed_at timestamptz
  );
  create index on ${name} (grant_id);
  create index on ${name} (expires_at);`;

const schema = `
  create table person (id uuid primary key, username text not null unique, password_hash text not null);
  ${['oidc_client', 'oidc_access_token', 'oidc_refresh_token', 'oidc_grant'].map(table).join('')}`;

const base64Url = (bytes: string): string => `translate(encode(${bytes}, 'base64'), '+/=', '-_')`;
const grantIdSql = base64Url(`sha256(convert_to('grant-' || n, 'UTF8'))`);
const epoch = (instant: string): string => `extract(epoch from ${instant})::bigint`;

export async function seedOidcProvider(
  adminUrl: string,
  databaseUrl: string,
  { families, passwordHash }: { families: number; passwordHash: string },
  progress: (text: string) => void,
): Promise<void> {
  await createDatabase(adminUrl, new URL(databaseUrl).pathname.slice(1), schema);
  await withClient(databaseUrl, registerClients);
  await seed(databaseUrl, parts(families, passwordHash), progress);
}

/** They never expire. */
async function registerClients(database: pg.Client): Promise<void> {
  const insertClient = `insert into oidc_client (id, payload, expires_at) values ($1, $2, 'infinity')`;
  for (const client of oidcClients) await database.query(insertClient, [client.client_id, client]);
}

/** Members of the payload that all tokens and grants have. */
const common = (kind: string, id: string, lifetime: string): string => `
  'iat', ${epoch(`now() - interval '1 minute'`)}, 'exp', ${epoch(`now() + interval '${lifetime}'`)},
  'jti', ${id}, 'kind', '${kind}', 'clientId', $4::text, 'accountId', ${personIdSql('n % $3')}`;

/** Revoked families (residue 0) have no rows: the library deletes what it revokes. */
const insert = (
  name: string,
  id: string,
  { lifetime, payload, grantId }: { lifetime: string; payload: string; grantId: string },
): string => `
  insert into ${name} (id, payload, grant_id, expires_at)
  select ${id}, jsonb_build_object(${payload}), ${grantId}, now() + interval '${lifetime}'
  from generate_series($1::int, $2::int) n where n % 8 <> 0`;

function parts(families: number, passwordHash: string): SeedPart[] {
  const values = [personCount(families), webClient.id, SCOPE];
  const accessId = base64Url(secretSql('access'));
  const refreshId = base64Url(secretSql('refresh'));
  const ofGrant = `'grantId', ${grantIdSql}, 'gty', 'password', 'scope', $5::text`;
  const refreshMembers = `'rotations', 0, 'iiat', ${epoch('now()')}`;
  const access = common('AccessToken', accessId, '1 day');
  const refresh = common('RefreshToken', refreshId, '7 days');
  const grant = common('Grant', grantIdSql, '30 days');
  return [
    {
      what: 'people',
      count: personCount(families),
      insert: `
        insert into person (id, username, password_hash)
        select ${personIdSql('n')}, 'person-' || n, $3 from generate_series($1::int, $2::int) n`,
      values: [passwordHash],
    },
    {
      what: 'access tokens',
      count: families,
      insert: insert('oidc_access_token', accessId, {
        lifetime: '1 day',
        payload: `${access}, ${ofGrant}, 'extra', '{}'::jsonb`,
        grantId: grantIdSql,
      }),
      values,
    },
    {
      what: 'refresh tokens',
      count: families,
      insert: insert('oidc_refresh_token', refreshId, {
        lifetime: '7 days',
        payload: `${refresh}, ${ofGrant}, ${refreshMembers}`,
        grantId: grantIdSql,
      }),
      values,
    },
    {
      what: 'grants',
      count: families,
      insert: insert('oidc_grant', grantIdSql, {
        lifetime: '30 days',
        payload: `${grant}, 'openid', jsonb_build_object('scope', $5::text)`,
        grantId: 'null',
      }),
      values,
    },
  ];
}
