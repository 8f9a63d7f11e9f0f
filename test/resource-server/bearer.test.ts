/**
 * What a guarded API answers, RFC 6750 §3: the same on Fastify, Express and plain `node:http`.
 *
 *   request  §2.1  Authorization: Bearer b64token
 *   errors   §3.1  invalid_request 400, invalid_token 401, insufficient_scope 403
 */
import { request as httpRequest } from 'node:http';
import t from 'tap';
import { API_AUDIENCE, createCast, login, revoke } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';
import { allApis, ask, bearer, refusal } from './apis.ts';

const server = await startServer(t);
const cast = await createCast(server);
const { c1, c2, rs1 } = cast;
const options = {
  introspectionEndpoint: `${server.url}/introspect`,
  clientId: rs1.id,
  clientSecret: rs1.secret,
  audience: API_AUDIENCE,
};
const apis = await allApis(t, options);
const realm = `realm="${API_AUDIENCE}"`;
const invalidToken = refusal(401, 'invalid_token', `Bearer ${realm}, error="invalid_token"`);
const invalidRequest = refusal(400, 'invalid_request', `Bearer ${realm}, error="invalid_request"`);
const unauthenticated = refusal(401, 'unauthorized', `Bearer ${realm}`);

const issue = async (parameters: Record<string, string> = {}) =>
  (await login(server, c1, parameters)).body;

t.test('a good token opens what its scope allows, and says who it is', async (t) => {
  const { access_token: token } = await issue();
  for (const { framework, url } of apis) {
    t.strictSame((await ask(`${url}/notes`, bearer(token))).body, ['a note'], framework);
    const written = await ask(`${url}/notes`, bearer(token), { method: 'POST' });
    t.equal(written.status, 200, framework);
    t.strictSame((await ask(`${url}/self`, bearer(token))).body, { sub: cast.aliceSubject });
  }
});

t.test(
  'BEA-01 RFC 6750 §3.1: without a token there is a challenge and no error code',
  async (t) => {
    for (const { framework, url } of apis) {
      t.strictSame(await ask(`${url}/notes`), unauthenticated, framework);
      const basic = { authorization: 'Basic YTpi' };
      t.strictSame(await ask(`${url}/notes`, basic), unauthenticated, `${framework}, Basic`);
    }
  },
);

t.test('BEA-02 RFC 6750 §3.1: a token that is not good is invalid_token', async (t) => {
  const { access_token: token } = await issue();
  const bad = [
    'x',
    `${token.slice(0, -1)}${token.endsWith('A') ? 'B' : 'A'}`,
    `hat_${'A'.repeat(70)}`,
  ];
  bad.push(
    'a'.repeat(4096),
    'a'.repeat(4097),
    '=',
    '"a"',
    'a!b',
    'a,b',
    'a=b',
    `${token}"`,
    '\xe4',
  );
  for (const { framework, url } of apis) {
    for (const each of bad) {
      t.strictSame(await ask(`${url}/notes`, bearer(each)), invalidToken, framework);
    }
  }
});

t.test('a revoked access token is refused at the next request', async (t) => {
  for (const { framework, url } of apis) {
    const { access_token: token, refresh_token: refreshToken } = await issue();
    t.equal((await ask(`${url}/notes`, bearer(token))).status, 200, framework);
    await revoke(server, c1, token);
    t.strictSame(await ask(`${url}/notes`, bearer(token)), invalidToken, framework);
    const { access_token: another } = await issue();
    t.equal((await ask(`${url}/notes`, bearer(another))).status, 200, framework);
    await revoke(server, c1, refreshToken);
    t.equal((await ask(`${url}/notes`, bearer(another))).status, 200, 'another session goes on');
  }
});

t.test('a token dies at its very exp', async (t) => {
  const { clientSecret } = await server.dependencies.clients.create({
    clientId: 'hasty',
    clientType: 'confidential',
    grantTypes: ['password'],
    scope: ['read'],
    audience: [API_AUDIENCE],
    accessTokenLifetimeSeconds: 2,
    retryWindowSeconds: 0,
  });
  const issued = await login(server, { id: 'hasty', secret: clientSecret as string });
  const headers = bearer(issued.body.access_token);
  for (const { framework, url } of apis) {
    t.equal((await ask(`${url}/notes`, headers)).status, 200, framework);
  }
  await new Promise((resolve) => setTimeout(resolve, 2500));
  for (const { framework, url } of apis) {
    t.strictSame(await ask(`${url}/notes`, headers), invalidToken, framework);
  }
});

t.test(
  'BEA-03 RFC 6750 §3.1: too little scope is insufficient_scope, which says what is needed',
  async (t) => {
    const { access_token: token } = await issue({ scope: 'read' });
    for (const { framework, url } of apis) {
      t.equal((await ask(`${url}/notes`, bearer(token))).status, 200, framework);
      t.strictSame(
        await ask(`${url}/notes`, bearer(token), { method: 'POST' }),
        refusal(
          403,
          'insufficient_scope',
          `Bearer ${realm}, error="insufficient_scope", scope="write"`,
        ),
        framework,
      );
    }
  },
);

t.test('BEA-04 OAuth 2.1 §5.1: a token in the URL is ignored', async (t) => {
  const { access_token: token } = await issue();
  for (const { framework, url } of apis) {
    const answer = await ask(`${url}/notes?access_token=${token}`);
    t.strictSame(answer, unauthenticated, framework);
  }
});

t.test('BEA-05 RFC 6750 §2: a token in header and body together is invalid_request', async (t) => {
  const { access_token: token } = await issue();
  const form = 'application/x-www-form-urlencoded';
  for (const { framework, url } of apis.slice(0, 2)) {
    // PUT on Fastify is guarded after the body was parsed, POST before.
    const methods = framework === 'fastify' ? ['POST', 'PUT'] : ['POST'];
    const types = [form, `${form}; charset=utf-8`].map((type) => ({ 'content-type': type }));
    for (const type of types) {
      for (const method of methods) {
        const send = (headers: Record<string, string>, parameters: Record<string, string>) =>
          ask(
            `${url}/notes`,
            { ...type, ...headers },
            { method, body: `${new URLSearchParams(parameters)}` },
          );
        const doubled = { access_token: token };
        const note = `${framework}, ${method}`;
        t.strictSame(await send(bearer(token), doubled), invalidRequest, note);
        t.equal((await send(bearer(token), { note: 'x' })).status, 200, `${note}, another form`);
        t.strictSame(await send({}, doubled), unauthenticated, `${note}, body alone`);
      }
    }
  }
});

t.test('BEA-06 OAuth 2.1 §5.1.1: the scheme has no case, the token has a grammar', async (t) => {
  const { access_token: token } = await issue();
  for (const { framework, url } of apis) {
    for (const scheme of ['Bearer', 'bearer', 'BEARER']) {
      const answer = await ask(`${url}/notes`, { authorization: `${scheme} ${token}` });
      t.equal(answer.status, 200, `${framework}: ${scheme}`);
    }
    const spaced = await ask(`${url}/notes`, { authorization: `Bearer   ${token}` });
    t.equal(spaced.status, 200, `${framework}: RFC 6750 §2.1 has 1*SP`);
    for (const malformed of ['Bearer', 'Bearer  ', 'Bearer a b', `Bearer ${token} b`]) {
      t.strictSame(
        await ask(`${url}/notes`, { authorization: malformed }),
        invalidRequest,
        `${framework}: ${malformed}`,
      );
    }
    t.strictSame(await ask(`${url}/notes`, { authorization: `Token ${token}` }), unauthenticated);
  }
});

t.test('two Authorization fields are refused, whichever is good', async (t) => {
  const { access_token: token } = await issue();
  for (const { framework, url } of apis) {
    const status = await new Promise((resolve, reject) => {
      const request = httpRequest(`${url}/notes`, { agent: false }, (response) => {
        response.resume();
        resolve(response.statusCode);
      });
      request.on('error', reject);
      request.setHeader('authorization', [`Bearer ${token}`, 'Bearer x']);
      request.end();
    });
    t.equal(status, 400, framework);
  }
});

t.test('BEA-07 RFC 6749 §1.5: a refresh token is no access token', async (t) => {
  const { refresh_token: refreshToken } = await issue();
  const own = await allApis(t, { ...options, clientId: c1.id, clientSecret: c1.secret });
  for (const { framework, url } of [...apis, ...own]) {
    t.strictSame(await ask(`${url}/notes`, bearer(refreshToken)), invalidToken, framework);
  }
});

t.test('BEA-08 RFC 6750 §3: whatever comes in, a challenge can be parsed', async (t) => {
  const inputs = ['Bearer "', 'Bearer \\', 'Bearer a", error="x', `Bearer ${'"'.repeat(300)}`];
  for (const { framework, url } of apis) {
    for (const authorization of inputs) {
      const { challenge } = await ask(`${url}/notes`, { authorization });
      t.match(challenge, /^Bearer realm="[^"\\]+", error="invalid_(request|token)"$/, framework);
    }
  }
});

t.test('a token for another audience is refused, as is one for none', async (t) => {
  const { access_token: token } = (await login(server, c2)).body;
  const any = await server.dependencies.clients.create({
    clientId: 'any',
    clientType: 'confidential',
    introspectionRight: 'any',
  });
  const credentials = { clientId: 'any', clientSecret: any.clientSecret as string };
  for (const { url } of await allApis(t, { ...options, ...credentials })) {
    t.strictSame(await ask(`${url}/notes`, bearer(token)), invalidToken);
  }
  const { audience: _, ...unchecked } = { ...options, ...credentials };
  for (const { url } of await allApis(t, unchecked)) {
    t.equal((await ask(`${url}/notes`, bearer(token))).status, 200, 'where none is demanded');
  }
});
