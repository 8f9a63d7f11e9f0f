/** Heirloom's database: migrated and given clients by the product itself, families by SQL. */
import { loadConfig } from '../../src/config.ts';
import { createDependencies } from '../../src/dependencies.ts';
import { AUDIENCE, apiClient, personCount, SCOPE, webClient } from './families.ts';
import {
  createDatabase,
  familyIdSql,
  personIdSql,
  type SeedPart,
  secretSql,
  seed,
} from './seed.ts';

/** Every family has instants of its own, so that nothing can be right about them only once. */
const ageSql = `(60 + n % 86400 + (n % 997) / 1000.0) * interval '1 second'`;
const lineageSql = `substr(${secretSql('lineage')}, 1, 16)`;

export async function seedHeirloom(
  adminUrl: string,
  databaseUrl: string,
  { families, passwordHash }: { families: number; passwordHash: string },
  progress: (text: string) => void,
): Promise<void> {
  await createDatabase(adminUrl, new URL(databaseUrl).pathname.slice(1));
  await registerClients(databaseUrl);
  await seed(databaseUrl, parts(families, passwordHash), progress);
}

async function registerClients(databaseUrl: string): Promise<void> {
  const { clients, close } = await createDependencies(loadConfig({ DATABASE_URL: databaseUrl }), {
    isMigrating: true,
    notice: console.error,
  });
  await clients.create({
    clientId: webClient.id,
    clientType: 'confidential',
    clientSecret: webClient.secret,
    grantTypes: ['password', 'refresh_token'],
    scope: SCOPE.split(' '),
    audience: [AUDIENCE],
  });
  // A resource server: neither the client that the tokens were issued to nor one that gets tokens.
  await clients.create({
    clientId: apiClient.id,
    clientType: 'confidential',
    clientSecret: apiClient.secret,
    introspectionRight: 'any',
  });
  await close();
}

const parts = (families: number, passwordHash: string): SeedPart[] => [
  {
    what: 'people',
    count: personCount(families),
    insert: `
      insert into resource_owner (id, username, password_hash)
      select ${personIdSql('n')}, 'person-' || n, $3 from generate_series($1::int, $2::int) n`,
    values: [passwordHash],
  },
  {
    what: 'families',
    count: families,
    // Refreshed once, as nearly every session is that is in use.
    insert: `
      insert into token_family (
        id, lineage_digest, generation, current_digest,
        previous_digest, successor_salt, rotated_at, retry_until,
        client_key, resource_owner_id, scope, audience,
        started_at, idle_expires_at, expires_at, revoked_at, revocation_reason, user_agent, address,
        access_tokens
      )
      select
        ${familyIdSql}, sha256(${lineageSql}), 1, sha256(${secretSql('refresh')}),
        ${secretSql('previous')}, ${secretSql('salt')},
        now() - ${ageSql}, now() - ${ageSql} + interval '1 minute',
        c.key, ${personIdSql('n % $3')}, $4, c.audience,
        now() - ${ageSql} - interval '1 hour',
        date_trunc('second', now() - ${ageSql} + interval '7 days'),
        date_trunc('second', now() - ${ageSql} + interval '30 days'),
        case when n % 8 = 0 then now() end, case when n % 8 = 0 then 'revoked' end,
        'Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0', '192.0.2.1',
        -- They outlive the run.
        array[row(
          sha256(${secretSql('access')}), $4,
          now() - ${ageSql}, date_trunc('second', now() - ${ageSql} + interval '2 days')
        )::issued_access_token]
      from generate_series($1::int, $2::int) n join client c on c.client_id = $5`,
    values: [personCount(families), SCOPE, webClient.id],
  },
];
