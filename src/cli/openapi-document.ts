/** The OpenAPI document, from the routes themselves and without a database. */
import { buildApp } from '../app.ts';
import { loadConfig } from '../config.ts';
import type { AuthorizationServer } from '../oauth/authorization-server.ts';

/** Nothing is served, so nothing is ever asked. */
const nobody = async (): Promise<never> => {
  throw new Error('the document is made without serving requests');
};
const authorizationServer: AuthorizationServer = {
  grantTypes: ['password', 'refresh_token'],
  token: nobody,
  revoke: nobody,
  introspect: nobody,
};

export async function openApiDocument(): Promise<unknown> {
  const config = { ...loadConfig({}), logLevel: 'silent' } as const;
  const origins = { find: nobody };
  const app = await buildApp({ config, authorizationServer, origins, checkReadiness: nobody });
  await app.ready();
  const document = app.swagger();
  await app.close();
  return document;
}
