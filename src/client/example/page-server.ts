/** Serves the page and its modules: TypeScript without its types is what a browser runs. */
import { readFile } from 'node:fs/promises';
import { stripTypeScriptTypes } from 'node:module';
import { join } from 'node:path';
import fastify, { type FastifyInstance } from 'fastify';

export interface Servers {
  readonly authorizationServer: string;
  readonly api: string;
  readonly clientId: string;
}

const CLIENT = join(import.meta.dirname, '..');

/** Builds the server; `servers` is asked at each request, since ports may be known only later. */
export function buildPageServer(servers: () => Servers): FastifyInstance {
  const app = fastify();

  // A page that can be made to run foreign script is signed in for that script too.
  app.addHook('onRequest', async (_request, reply) => {
    const { authorizationServer, api } = servers();
    reply.headers({
      'content-security-policy': `default-src 'none'; script-src 'self'; img-src data:; connect-src 'self' ${authorizationServer} ${api}; base-uri 'none'; form-action 'none'; frame-ancestors 'none'`,
      'x-content-type-options': 'nosniff',
      'referrer-policy': 'no-referrer',
      'cache-control': 'no-store',
    });
  });

  app.get('/', async (_request, reply) =>
    reply.type('text/html').send(await readFile(join(CLIENT, 'example/index.html'), 'utf8')),
  );
  app.get('/servers.json', async () => servers());

  const module = async (name: string) =>
    stripTypeScriptTypes(await readFile(join(CLIENT, name), 'utf8'));
  app.get('/example/page.ts', async (_request, reply) =>
    reply.type('text/javascript').send(await module('example/page.ts')),
  );
  app.get<{ Params: { name: string } }>('/:name([a-z-]+).ts', async ({ params }, reply) =>
    reply.type('text/javascript').send(await module(`${params.name}.ts`)),
  );
  return app;
}
