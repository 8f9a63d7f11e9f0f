/** The example's page server: modules of the client as a browser runs them, and nothing else. */
import t from 'tap';
import { buildPageServer } from '../../src/client/example/page-server.ts';

const app = buildPageServer(() => ({
  authorizationServer: 'http://127.0.0.1:3000',
  api: 'http://127.0.0.1:3001',
  clientId: 'example-web',
}));
const origin = await app.listen({ host: '127.0.0.1', port: 0 });
const authority = new URL(origin).host;
t.teardown(() => app.close());

t.test('modules are served as JavaScript, and what is not there is 404', async (t) => {
  for (const url of ['/client.ts', '/example/page.ts']) {
    const { statusCode, headers, body } = await app.inject({ url, authority });
    t.equal(statusCode, 200, url);
    t.match(headers['content-type'], /^text\/javascript/, url);
    t.notMatch(body, /^(interface|import type) /m, `${url} has no types`);
  }

  const absent = ['/nope.ts', '/nope.js', '/example/nope.ts', '/example/run.ts', '/..%2fconfig.ts'];
  for (const url of absent) {
    const { statusCode, headers, body } = await app.inject({ url, authority });
    t.equal(statusCode, 404, url);
    t.match(headers['content-type'], /^application\/json/, url);
    t.match(JSON.parse(body), { error: 'Not Found' }, url);
  }
});

t.test('another name of the machine leads to the origin that is registered', async (t) => {
  const { statusCode, headers } = await app.inject({
    url: '/client.ts',
    authority: authority.replace('127.0.0.1', 'localhost'),
  });
  t.equal(statusCode, 302);
  t.equal(headers.location, `${origin}/client.ts`);
});
