/** What the OpenAPI document says of requests and answers is what people's generators and mock servers make of it. */
import t from 'tap';
import { demo, ensureDemo } from '../../src/demo.ts';
import { basic, post } from '../support/client.ts';
import { documentedPaths, type Reference, resolveSchema } from '../support/documented.ts';
import { startServer } from '../support/server.ts';

type Schema = {
  readonly required?: readonly string[];
  readonly properties: Readonly<Record<string, Property>>;
};
type Property = {
  readonly pattern?: string;
  readonly minLength?: number;
  readonly default?: string;
  readonly examples?: readonly string[];
  readonly const?: unknown;
};

const server = await startServer(t, { isRateLimitOn: false });
await ensureDemo(server.dependencies);
const api = basic(demo.apiClientId, demo.apiClientSecret);

const forms = Object.entries(documentedPaths).flatMap(([path, { post: operation }]) => {
  const media = operation?.requestBody?.content['application/x-www-form-urlencoded'];
  return media ? [{ path, schema: resolveSchema<Schema>(media.schema) }] : [];
});

const answerOf = <Answer>(path: string) => {
  const content = documentedPaths[path]?.['post']?.responses['200']?.content;
  return resolveSchema<Answer>(content?.['application/json']?.schema ?? {});
};

t.test('clients are generated with one type for each body, and one for all failures', async (t) => {
  const operations = Object.entries(documentedPaths).flatMap(([path, methods]) =>
    Object.values(methods).map(({ responses }) => ({ path, responses })),
  );
  t.equal(operations.length, 6);
  for (const { path, responses } of operations) {
    for (const [status, { content }] of Object.entries(responses)) {
      const schema = content?.['application/json']?.schema ?? {};
      t.doesNotThrow(() => resolveSchema(schema), `${path} ${status}`);
      t.equal(
        schema.$ref?.endsWith('/ErrorResponse'),
        !status.startsWith('2'),
        `${path} ${status}`,
      );
    }
  }
});

t.test('a parameter is refused for its characters where the document says so', async (t) => {
  t.equal(forms.length, 3);
  for (const { path, schema } of forms) {
    const filled = Object.fromEntries((schema.required ?? []).map((name) => [name, 'x']));
    for (const [name, { pattern = '' }] of Object.entries(schema.properties)) {
      for (const value of ['a\u0000', 'a\u0008', 'a\n', '\r', 'a\u001fb', '\u007f']) {
        t.notMatch(value, new RegExp(pattern || '^'), `${path} documents ${name}`);
        const { status, body } = await post(server.url + path, { ...filled, [name]: value });
        t.strictSame([status, body.error], [400, 'invalid_request'], `${path} refuses ${name}`);
      }
      for (const value of ['a\tb', '\u0080', 'ü', '😀']) {
        t.match(value, new RegExp(pattern), `${path} documents ${name}`);
        const { status } = await post(server.url + path, { ...filled, [name]: value });
        t.equal(status, 401, `${path} asks for a client, whatever ${name}`);
      }
    }
  }
});

t.test('what is required cannot be empty, in the document as on the wire', async (t) => {
  for (const { path, schema } of forms) {
    for (const name of schema.required ?? []) {
      t.match(schema.properties[name], { minLength: 1, default: undefined }, `${path} ${name}`);
      const { status, body } = await post(server.url + path, { [name]: '' }, api);
      t.strictSame([status, body.error], [400, 'invalid_request'], `${path} ${name}`);
    }
  }
});

t.test('clients are generated that tell an active token from a dead one', async (t) => {
  const { anyOf } = answerOf<{ anyOf: Reference[] }>('/introspect');
  const alternatives = anyOf.map((each) => resolveSchema<Schema>(each));
  const constants = alternatives.map(({ properties }) => properties['active']?.const);
  t.strictSame(constants, [true, false]);
});

t.test('a mock server answers with tokens of the documented shape', async (t) => {
  const { properties } = answerOf<Schema>('/token');
  for (const name of ['access_token', 'refresh_token']) {
    const { pattern, examples } = properties[name] ?? {};
    t.match(examples?.[0], new RegExp(pattern ?? '$^'), name);
  }
});
