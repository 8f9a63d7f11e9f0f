/**
 * An API that keeps notes, guarded by introspection: `GET /notes` demands the scope `read`, `POST /notes`
 * demands `write`.
 *
 *   INTROSPECTION_ENDPOINT=http://127.0.0.1:3000/introspect \
 *   CLIENT_ID=demo-api CLIENT_SECRET=demo-api-secret node src/resource-server/example/api.ts
 */
import cors from '@fastify/cors';
import fastify from 'fastify';
import resourceServer from '../resource-server.ts';

const setting = (name: string, fallback?: string): string => {
  const value = process.env[name] ?? fallback;
  if (value === undefined) throw new Error(`${name} is not set`);
  return value;
};

const app = fastify({ logger: { level: 'warn' } });

// The app in the browser has another origin than its API.
await app.register(cors, { origin: setting('APP_ORIGIN', 'http://127.0.0.1:8080') });

await app.register(resourceServer, {
  introspectionEndpoint: setting('INTROSPECTION_ENDPOINT', 'http://127.0.0.1:3000/introspect'),
  clientId: setting('CLIENT_ID'),
  clientSecret: setting('CLIENT_SECRET'),
  realm: 'notes',
});

/** By `sub`: the one name of a person that never becomes somebody else's. */
const notesOf = new Map<string, string[]>();

app.get('/notes', { onRequest: app.requireScope('read') }, async ({ token }) => {
  return notesOf.get(token?.subject ?? '') ?? [];
});

const note = { type: 'string', minLength: 1, maxLength: 1000 } as const;

app.post<{ Body: { note: string } }>(
  '/notes',
  {
    onRequest: app.requireScope('write'),
    schema: { body: { type: 'object', required: ['note'], properties: { note } } },
  },
  async ({ token, body }, reply) => {
    const subject = token?.subject ?? '';
    notesOf.set(subject, [...(notesOf.get(subject) ?? []), body.note].slice(-100));
    return reply.code(201).send(notesOf.get(subject));
  },
);

const url = await app.listen({ host: '127.0.0.1', port: Number(setting('PORT', '3001')) });
const end = () => app.close();
process.once('SIGTERM', end);
// A parent that opened a channel, as `npm run example` does, is followed when it dies.
process.once('disconnect', end);
process.channel?.unref();
process.stdout.write(`API listening on ${url}\n`);
