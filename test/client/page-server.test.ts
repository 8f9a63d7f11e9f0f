/** The example's page server: modules of the client as a browser runs them, and nothing else. */
import t from 'tap';
import { buildPageServer } from '../../src/client/example/page-server.ts';

t.test('modules are served as JavaScript, and what is not there is 404', async (t) => {
  const app = buildPageServer(() => ({
    authorizationServer: 'http://127.0.0.1:3000',
    api: 'http://127.0.0.1:3001',
    clientId: 'example-web',
  }));
  t.teardown(() => app.close());

  for (const url of ['/client.ts', '/example/page.ts']) {
    const { statusCode, headers, body } = await app.inject(url);
    t.equal(statusCode, 200, url);
    t.match(headers['content-type'], /^text\/javascript/, url);
    t.notMatch(body, /^(interface|import type) /m, `${url} has no types`);
  }

  const absent = ['/nope.ts', '/nope.js', '/example/nope.ts', '/example/run.ts', '/..%2fconfig.ts'];
  for (const url of absent) {
    const { statusCode, headers, body } = await app.inject(url);
    t.equal(statusCode, 404, url);
    t.match(headers['content-type'], /^application\/json/, url);
    t.match(JSON.parse(body), { error: 'Not Found' }, url);
  }
});
