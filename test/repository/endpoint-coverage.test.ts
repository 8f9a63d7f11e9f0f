/** Every operation of the OpenAPI document has its unauthenticated case. */
import t from 'tap';
import { post, send } from '../support/client.ts';
import { assertDocumented, documentedPaths } from '../support/documented.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t);

/** What an operation needs besides a client, so that only the client is missing. */
const parameters: Record<string, Record<string, string>> = {
  '/token': { grant_type: 'password', username: 'alice', password: 'x' },
  '/revoke': { token: 'x' },
  '/introspect': { token: 'x' },
};

t.test('every operation either needs no client or refuses a request without one', async (t) => {
  const isPublic = ['/livez', '/readyz', '/.well-known/oauth-authorization-server'];
  for (const [path, operations] of Object.entries(documentedPaths)) {
    for (const method of Object.keys(operations)) {
      if (isPublic.includes(path)) {
        t.equal((await send(server.url + path, { method })).status, 200, `${method} ${path}`);
        continue;
      }
      const needed = parameters[path];
      t.ok(needed, `${method} ${path} has an unauthenticated case here`);
      const answer = await post(server.url + path, needed ?? {});
      t.equal(answer.status, 401, `${method} ${path}`);
      t.equal(answer.body.error, 'invalid_client');
    }
  }
});

t.test(
  'MET-10 contract: a status that is not documented fails the test that sees it',
  async (t) => {
    t.throws(() => assertDocumented('POST', `${server.url}/token`, 418), /lacks/);
    t.doesNotThrow(() => assertDocumented('POST', `${server.url}/token`, 400));
  },
);

t.test(
  'MET-13 contract: a header that is not documented fails the test that sees it',
  async (t) => {
    const assertHeader = (status: number, name: string) =>
      assertDocumented('POST', `${server.url}/token`, status, new Headers({ [name]: '1' }));
    t.throws(() => assertHeader(400, 'retry-after'), /lacks/);
    t.doesNotThrow(() => assertHeader(503, 'retry-after'));
    t.doesNotThrow(() => assertHeader(400, 'set-cookie'), 'a session that is over ends its cookie');
  },
);

t.test('MET-14 contract: refusals are documented as they are answered', async (t) => {
  const needed = { grant_type: 'password', username: 'alice', password: 'x' };
  const { body } = await post(`${server.url}/token`, needed);
  const example = documentedPaths['/token']?.post?.responses[401]?.content;
  t.strictSame(example?.['application/json']?.examples?.['invalid_client']?.value, body);
});

t.test(
  'MET-15 RFC 8414 §2: every way to authenticate that is announced is documented',
  async (t) => {
    const metadata = (await send(`${server.url}/.well-known/oauth-authorization-server`)).body;
    const endpoints = { token: '/token', revocation: '/revoke', introspection: '/introspect' };
    for (const [name, path] of Object.entries(endpoints)) {
      const methods: string[] = metadata[`${name}_endpoint_auth_methods_supported`];
      const inHeader = (method: string) => method === 'client_secret_basic';
      const documented = documentedPaths[path]?.post?.security ?? [];
      t.ok(
        methods.some(inHeader) && documented.some((each) => 'client_secret_basic' in each),
        path,
      );
      const isHeaderOptional = documented.some((each) => Object.keys(each).length === 0);
      t.equal(isHeaderOptional, !methods.every(inHeader), `${path}: credentials in the body`);
    }
  },
);
