/** Demo clients and a demo person, for the embedded database only: everybody knows their passwords. */
import type { Dependencies } from './dependencies.ts';
import { StartUpError } from './start-up-error.ts';
import { NameTaken } from './storage/administration-error.ts';
import { ClientEntity, ResourceOwnerEntity } from './storage/entities.ts';

export const demo = {
  clientId: 'demo',
  apiClientId: 'demo-api',
  apiClientSecret: 'demo-api-secret',
  username: 'alice',
  password: 'correct horse battery staple',
} as const;

/** Creates what of the demo is missing; what somebody changed stays as it is. */
export async function ensureDemo({ clients, resourceOwners }: Dependencies): Promise<void> {
  const isDemo = true;
  const wanted = [
    clients.create({
      clientId: demo.clientId,
      clientType: 'public',
      grantTypes: ['password', 'refresh_token'],
      scope: ['read', 'write'],
      isDemo,
    }),
    clients.create({
      clientId: demo.apiClientId,
      clientType: 'confidential',
      clientSecret: demo.apiClientSecret,
      introspectionRight: 'any',
      isDemo,
    }),
    resourceOwners.create(demo.username, demo.password, { isDemo }),
  ];
  for (const outcome of await Promise.allSettled<unknown>(wanted)) {
    if (outcome.status === 'fulfilled' || outcome.reason instanceof NameTaken) continue;
    throw outcome.reason;
  }
}

/** @throws StartUpError if the database holds demo rows, which must never face a network */
export async function refuseDemo({ database }: Dependencies): Promise<void> {
  const em = database.orm.em.fork();
  const isDemo = { isDemo: true };
  const rows =
    (await em.count(ClientEntity, isDemo)) + (await em.count(ResourceOwnerEntity, isDemo));
  if (rows === 0) return;
  throw new StartUpError(
    'The database at DATABASE_URL holds demo accounts, whose passwords everybody knows. ' +
      `Delete them first: heirloom user delete ${demo.username}, heirloom client delete ` +
      `${demo.clientId} and ${demo.apiClientId}, heirloom prune.`,
  );
}

/** What a newcomer can paste into a shell. */
export const demoBanner = (url: string): string => `
  Demo, for this machine only: client "${demo.clientId}", person "${demo.username}", resource server "${demo.apiClientId}"

  Log in:
    curl -s ${url}/token -d grant_type=password -d client_id=${demo.clientId} -d username=${demo.username} --data-urlencode 'password=${demo.password}'

  Ask whether a token is good:
    curl -s ${url}/introspect -u ${demo.apiClientId}:${demo.apiClientSecret} -d token=PASTE_AN_ACCESS_TOKEN

  Try it in a browser: ${url}/docs
`;
