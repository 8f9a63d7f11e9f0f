/** Serves the page and its modules: TypeScript without its types is what a browser runs. */
import { readFile } from 'node:fs/promises';
import { stripTypeScriptTypes } from 'node:module';
import { join } from 'node:path';
import fastify, { type FastifyInstance, type FastifyReply } from 'fastify';

export interface Servers {
  readonly authorizationServer: string;
  readonly api: string;
  readonly clientId: string;
}

const CLIENT = join(import.meta.dirname, '..');

/** Builds the server; `servers` is asked at each request, since ports may be known only later. */
export function buildPageServer(servers: () => Servers): FastifyInstance {
  const app = fastify();

  // Only the origin that is registered may ask for tokens, which another name of this machine is not.
  app.addHook('onRequest', async (request, reply) => {
    const origin = app.listeningOrigin;
    if (request.host !== new URL(origin).host) return reply.redirect(`${origin}${request.url}`);
  });

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

  const sendModule = async (reply: FastifyReply, name: string) => {
    const source = await readFile(join(CLIENT, name), 'utf8').catch((error) => {
      if (error.code !== 'ENOENT') throw error;
    });
    if (source !== undefined) {
      return reply.type('text/javascript').send(stripTypeScriptTypes(source));
    }
    reply.callNotFound();
    return reply;
  };
  app.get('/example/page.ts', (_request, reply) => sendModule(reply, 'example/page.ts'));
  app.get<{ Params: { name: string } }>('/:name([a-z-]+).ts', ({ params }, reply) =>
    sendModule(reply, `${params.name}.ts`),
  );
  return app;
}
