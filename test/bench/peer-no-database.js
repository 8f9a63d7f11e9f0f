/**
 * The ceiling: a Fastify route that parses the same form, with the parser that Fastify's own plugin
 * has, and answers the same JSON with a response schema. It asks nobody and checks nothing.
 */
import formbody from '@fastify/formbody';
import fastify from 'fastify';
import { AUDIENCE, SCOPE, subject, webClient } from './families.ts';

const string = { type: 'string' };
const integer = { type: 'integer' };
const introspection = {
  type: 'object',
  properties: {
    active: { type: 'boolean' },
    scope: string,
    client_id: string,
    sub: string,
    aud: string,
    iss: string,
    token_type: string,
    exp: integer,
    iat: integer,
  },
};

const sub = subject(1);
const app = fastify();
await app.register(formbody);
app.post('/introspect', { schema: { response: { 200: introspection } } }, async ({ body }) => ({
  active: body.token !== undefined,
  scope: SCOPE,
  client_id: webClient.id,
  sub,
  aud: AUDIENCE,
  iss: 'http://127.0.0.1:3000',
  token_type: 'Bearer',
  exp: 1_800_000_900,
  iat: 1_800_000_000,
}));
const url = await app.listen({ host: '127.0.0.1', port: 0 });
console.log(`no-database listening on ${url}`);
process.on('SIGTERM', () => process.exit(0));
