/** The database of `peer-oauth2-server.js`: a row per pair of tokens, both found by an index. */
import { personCount, SCOPE, sha256, webClient } from './families.ts';
import { createDatabase, personIdSql, type SeedPart, secretSql, seed, withClient } from './seed.ts';

const schema = `
  create table person (id uuid primary key, username text not null unique, password_hash text not null);
  create table client (id text primary key, secret_digest bytea not null, grants text[] not null);
  create table token (
    access_token text primary key,
    access_token_expires_at timestamptz not null,
    refresh_token text not null unique,
    refresh_token_expires_at timestamptz not null,
    scope text[] not null,
    client_id text not null references client,
    person_id uuid not null references person
  );`;

export async function seedOauth2Server(
  adminUrl: string,
  databaseUrl: string,
  { families, passwordHash }: { families: number; passwordHash: string },
  progress: (text: string) => void,
): Promise<void> {
  await createDatabase(adminUrl, new URL(databaseUrl).pathname.slice(1), schema);
  await withClient(databaseUrl, (client) =>
    client.query('insert into client values ($1, $2, $3)', [
      webClient.id,
      sha256(webClient.secret),
      ['password', 'refresh_token'],
    ]),
  );
  await seed(databaseUrl, parts(families, passwordHash), progress);
}

const parts = (families: number, passwordHash: string): SeedPart[] => [
  {
    what: 'people',
    count: personCount(families),
    insert: `
      insert into person (id, username, password_hash)
      select ${personIdSql('n')}, 'person-' || n, $3 from generate_series($1::int, $2::int) n`,
    values: [passwordHash],
  },
  {
    what: 'tokens',
    count: families,
    // Revoked families (residue 0) have no rows: revoking deletes.
    insert: `
      insert into token
      select
        encode(${secretSql('access')}, 'hex'), now() + interval '1 day',
        encode(${secretSql('refresh')}, 'hex'), now() + interval '7 days',
        $4, $5, ${personIdSql('n % $3')}
      from generate_series($1::int, $2::int) n where n % 8 <> 0`,
    values: [personCount(families), SCOPE.split(' '), webClient.id],
  },
];
