/** `/readyz`, which anybody can ask at any pace. */
import fastify from 'fastify';
import t from 'tap';
import { addHealthEndpoints } from '../../src/http/health-endpoints.ts';

t.test('however many ask whether the server is ready, the database is asked once', async (t) => {
  const waiting: { resolve: () => void; reject: (error: Error) => void }[] = [];
  const checkReadiness = () =>
    new Promise<void>((resolve, reject) => waiting.push({ resolve, reject }));
  const app = fastify();
  // As in the application: schemas describe answers and write none.
  app.setSerializerCompiler(() => (body) => JSON.stringify(body));
  t.teardown(() => app.close());
  addHealthEndpoints(app, checkReadiness, () => false);
  const ask = async () => {
    const asked = waiting.length;
    const answers = Array.from({ length: 20 }, () => app.inject('/readyz'));
    while (waiting.length === asked) await new Promise((resolve) => setImmediate(resolve));
    return async () => (await Promise.all(answers)).map(({ statusCode }) => statusCode);
  };
  const ready = await ask();
  // Whoever has not arrived by now would start a check of their own.
  await new Promise((resolve) => setTimeout(resolve, 200));
  waiting[0]?.resolve();
  t.strictSame(new Set(await ready()), new Set([200]));
  t.equal(waiting.length, 1);

  const unready = await ask();
  await new Promise((resolve) => setTimeout(resolve, 200));
  waiting[1]?.reject(new Error('no database'));
  t.strictSame(new Set(await unready()), new Set([500]), 'an answer is not kept');
  t.equal(waiting.length, 2);
});
