/**
 * Client authentication, RFC 6749 §2.3, on all three endpoints.
 *
 *   Authorization: Basic base64(urlencode(client_id) ":" urlencode(client_secret))
 *   or in the body: client_id, client_secret
 *   failure: 401 invalid_client with WWW-Authenticate (RFC 6749 §5.2)
 */
import t, { type Test } from 'tap';
import { type Answer, basic, type Parameters, post } from '../support/client.ts';
import { ALICE_PASSWORD, createCast, login, refresh } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t);
const cast = await createCast(server);
const { clients } = server.dependencies;
const { c1, c2, p1 } = cast;

const invalidClientBody = {
  error: 'invalid_client',
  error_description: 'Client authentication failed.',
};
const invalidRequestBody = {
  error: 'invalid_request',
  error_description:
    'The request is missing a parameter, repeats a parameter, or is otherwise malformed.',
};

const raw = (pair: string) => ({ authorization: `Basic ${Buffer.from(pair).toString('base64')}` });

/** What each endpoint needs besides the client. */
const endpoints: Readonly<Record<string, Record<string, string>>> = {
  '/token': { grant_type: 'password', username: 'alice', password: ALICE_PASSWORD },
  '/revoke': { token: 'unknown' },
  '/introspect': { token: 'unknown' },
};

/** Asks every endpoint in the same way. */
async function everywhere(
  _t: Test,
  parameters: Parameters,
  headers: Record<string, string>,
  check: (answer: Answer, path: string) => void,
): Promise<void> {
  for (const [path, needed] of Object.entries(endpoints)) {
    const pairs = [...Object.entries(needed), ...new URLSearchParams(parameters as never)];
    check(await post(`${server.url}${path}`, pairs as [string, string][], headers), path);
  }
}

const accepted = (answer: Answer, path: string) => t.equal(answer.status, 200, path);
const refused = (answer: Answer, path: string) => {
  t.equal(answer.status, 401, path);
  t.strictSame(answer.body, invalidClientBody, path);
  t.equal(answer.headers.get('www-authenticate'), 'Basic realm="heirloom"', path);
};
const malformed = (answer: Answer, path: string) => {
  t.equal(answer.status, 400, path);
  t.strictSame(answer.body, invalidRequestBody, path);
};

t.test('CLA-01 RFC 6749 §2.3.1: Basic with id and secret is accepted', (t) =>
  everywhere(t, {}, basic(c1.id, c1.secret), accepted),
);

t.test('CLA-02 RFC 6749 §2.3.1: id and secret are form-urlencoded before base64', async (t) => {
  const secret = ' %&+:é some secure & non-standard secret';
  await clients.create({
    clientId: 'an.identifier~1',
    clientType: 'confidential',
    clientSecret: secret,
    grantTypes: ['password'],
    scope: ['read'],
  });
  await everywhere(t, {}, basic('an.identifier~1', secret), accepted);
  const percent = encodeURIComponent(secret);
  await everywhere(t, {}, raw(`an.identifier%7E1:${percent}`), accepted);
  await everywhere(t, {}, raw(`an.identifier~1:${percent.replaceAll('%20', '+')}`), accepted);
});

t.test('CLA-03 RFC 6749 §2.3.1: bad escapes in the header are invalid_client', async (t) => {
  await everywhere(t, {}, raw('foo%zz:bar'), refused);
  await everywhere(t, {}, raw(`${c1.id}:%`), refused);
  await everywhere(t, {}, raw('foo%00:bar'), refused);
  const invalidUtf8 = Buffer.from([0x43, 0xff, 0x3a, 0x41]).toString('base64');
  await everywhere(t, {}, { authorization: `Basic ${invalidUtf8}` }, refused);
});

t.test('CLA-04 RFC 7617 §2: the scheme is case-insensitive', async (t) => {
  const { authorization } = basic(c1.id, c1.secret) as { authorization: string };
  for (const scheme of ['basic', 'BASIC', 'BaSiC']) {
    await everywhere(t, {}, { authorization: authorization.replace('Basic', scheme) }, accepted);
  }
});

t.test('CLA-05 RFC 7617 §2: the pair splits at the first colon only', async (t) => {
  const settings = { grantTypes: ['password'], scope: ['read'] };
  const clientSecret = 'with:two:colons';
  await clients.create({
    clientId: 'colon',
    clientType: 'confidential',
    clientSecret,
    ...settings,
  });
  await everywhere(t, {}, raw(`colon:${clientSecret}`), accepted);
});

t.test(
  'CLA-06 RFC 6749 §2.3.1: a Basic header that says nothing is never passed over',
  async (t) => {
    for (const authorization of [
      'Basic',
      'Basic ',
      'Basic Zm9v',
      'Basic !!!',
      'Basic Og==',
      'Basic a b',
    ]) {
      await everywhere(t, { client_id: p1.id }, { authorization }, refused);
    }
    const authorization = `${basic(c1.id, c1.secret).authorization} x`;
    await everywhere(t, {}, { authorization }, refused);
  },
);

t.test('CLA-07 RFC 6749 §5.2: a wrong secret is 401 with one challenge', (t) =>
  everywhere(t, {}, basic(c1.id, 'wrong'), refused),
);

t.test('CLA-08 RFC 6749 §5.2: an unknown client gets the same answer', (t) =>
  everywhere(t, {}, basic('nobody', 'wrong'), refused),
);

t.test(
  'CLA-08 ASVS 6.3.8: what browsers may read tells no client that exists either',
  async (t) => {
    const origin = 'https://app.example';
    const grants = { grantTypes: ['password'], scope: ['read'] };
    await clients.create({ clientId: 'app', clientType: 'public', ...grants, origins: [origin] });
    const refusalOf = async (path: string, clientId: string, method: 'basic' | 'post') => {
      const presented = { client_id: clientId, client_secret: 'wrong' };
      const answer = await post(
        `${server.url}${path}`,
        { ...endpoints[path], ...(method === 'post' && presented) },
        { origin, ...(method === 'basic' && basic(clientId, 'wrong')) },
      );
      const { date: _, ...headers } = Object.fromEntries(answer.headers);
      const limits = Object.keys(headers).filter((name) => name.startsWith('ratelimit-'));
      for (const name of limits) delete headers[name];
      return { status: answer.status, headers, body: answer.body };
    };
    for (const path of ['/token', '/revoke']) {
      for (const method of ['basic', 'post'] as const) {
        const unknown = await refusalOf(path, 'nobody', method);
        t.equal(unknown.headers['access-control-allow-origin'], origin);
        for (const known of [c1.id, 'app']) {
          t.strictSame(await refusalOf(path, known, method), unknown, `${path} ${method} ${known}`);
        }
      }
    }
  },
);

t.test('CLA-09 RFC 6749 §5.2: a wrong secret in the body is refused alike', async (t) => {
  await everywhere(t, { client_id: c1.id, client_secret: c1.secret }, {}, accepted);
  await everywhere(t, { client_id: c1.id, client_secret: 'wrong' }, {}, refused);
  await everywhere(t, { client_id: 'nobody', client_secret: 'wrong' }, {}, refused);
});

t.test('CLA-10 RFC 6749 §2.3: two methods at once are invalid_request', async (t) => {
  for (const secret of [c1.secret, 'wrong']) {
    const both = { client_id: c1.id, client_secret: secret };
    await everywhere(t, both, basic(c1.id, c1.secret), malformed);
  }
});

t.test('CLA-11 RFC 6749 §2.3: a client_id in the body must be the one of the header', async (t) => {
  await everywhere(t, { client_id: c1.id }, basic(c1.id, c1.secret), accepted);
  await everywhere(t, { client_id: c2.id }, basic(c1.id, c1.secret), malformed);
});

t.test('CLA-12 RFC 6749 §3.2: an empty client_id in the body counts as omitted', (t) =>
  everywhere(t, { client_id: '' }, basic(c1.id, c1.secret), accepted),
);

t.test('CLA-13 RFC 7521 §4.2: Basic and an assertion at once are invalid_request', async (t) => {
  await everywhere(t, { client_assertion: 'x' }, basic(c1.id, c1.secret), malformed);
  await everywhere(t, { client_assertion: 'x', client_id: c1.id }, {}, refused);
});

t.test('CLA-14 RFC 6749 §3.2.1: a confidential client without a secret is refused', (t) =>
  everywhere(t, { client_id: c1.id }, {}, refused),
);

t.test(
  'CLA-15 RFC 6749 §3.2.1: a confidential client with an empty secret is refused',
  async (t) => {
    await everywhere(t, { client_id: c1.id, client_secret: '' }, {}, refused);
    await everywhere(t, {}, raw(`${c1.id}:`), refused);
  },
);

t.test('CLA-16 RFC 6749 §2.1: a public client says who it is', async (t) => {
  t.equal((await login(server, p1)).status, 200);
  t.equal((await post(`${server.url}/revoke`, { token: 'x', client_id: p1.id })).status, 200);
});

t.test('CLA-17 RFC 6749 §2.1: a public client with a secret is refused', async (t) => {
  await everywhere(t, { client_id: p1.id, client_secret: 'made up' }, {}, refused);
  await everywhere(t, {}, basic(p1.id, 'made up'), refused);
});

t.test('CLA-18 RFC 6749 §5.2: no client identification at all is invalid_client', (t) =>
  everywhere(t, {}, {}, refused),
);

t.test('CLA-19 RFC 6749 §5.2: another scheme is not the same as no authentication', async (t) => {
  for (const authorization of ['Bearer x', 'Digest x', 'x', `Basic,${c1.id}`]) {
    await everywhere(t, { client_id: p1.id }, { authorization }, refused);
  }
});

t.test(
  'CLA-20 RFC 6749 §5.2: a client without the grant is told so, whatever the password',
  async (t) => {
    await clients.create({
      clientId: 'refresh-only',
      clientType: 'public',
      grantTypes: ['refresh_token'],
      scope: ['read'],
    });
    for (const password of [ALICE_PASSWORD, 'wrong']) {
      const answer = await login(server, { id: 'refresh-only' }, { password });
      t.equal(answer.status, 400);
      t.strictSame(answer.body, {
        error: 'unauthorized_client',
        error_description: 'This client may not use this grant type.',
      });
    }
  },
);

t.test(
  'CLA-21 RFC 6749 Appendix A.1: a client_id outside printable ASCII is refused',
  async (t) => {
    for (const clientId of ['é', 'a\u007fb', 'C1\u200b']) {
      const answer = await login(server, { id: clientId });
      t.match(answer, { body: { error: /^invalid_(client|request)$/ } }, JSON.stringify(clientId));
    }
  },
);

t.test('CLA-22 RFC 8414 §4: a client_id is compared exactly', async (_t) => {
  for (const clientId of ['p1', ' P1', 'P1 ', 'Ｐ1']) {
    refused(await login(server, { id: clientId }), clientId);
  }
});

t.test(
  'CLA-23 ASVS 13.3.4: while a secret is rotated both work, and a retired one nowhere',
  async (t) => {
    const other = await startServer(t, {
      database: { url: server.databaseUrl, inspect: server.inspect },
    });
    const created = await clients.create({
      clientId: 'rotating',
      clientType: 'confidential',
      grantTypes: ['password'],
      scope: ['read'],
    });
    const old = created.clientSecret as string;
    const { clientSecret } = await clients.rotateSecret('rotating', 3600);
    for (const secret of [old, clientSecret]) {
      for (const instance of [server, other]) {
        t.equal((await login(instance, { id: 'rotating', secret })).status, 200);
      }
    }
    await clients.rotateSecret('rotating', 0);
    for (const secret of [old, clientSecret]) {
      for (const instance of [server, other])
        refused(await login(instance, { id: 'rotating', secret }), '');
    }
  },
);

t.test('CLA-24 RFC 6749 §5.2: an expired secret gets the answer of a wrong one', async (t) => {
  const created = await clients.create({ clientId: 'expired', clientType: 'confidential' });
  const secret = created.clientSecret as string;
  const shift =
    "update client_secret set expires_at = clock_timestamp() from client c where c.key = client_key and c.client_id = 'expired'";
  await server.inspect.query(shift);
  await everywhere(t, {}, basic('expired', secret), refused);
});

t.test('CLA-25 RFC 6749 §3.2.1: a disabled or deleted client is unknown everywhere', async (t) => {
  const settings = { grantTypes: ['password', 'refresh_token'], scope: ['read'] };
  for (const end of ['disable', 'delete'] as const) {
    const clientId = `to-${end}`;
    const created = await clients.create({ clientId, clientType: 'confidential', ...settings });
    const caller = { id: clientId, secret: created.clientSecret as string };
    const { body } = await login(server, caller);
    await clients[end](clientId);
    await everywhere(t, {}, basic(caller.id, caller.secret), refused);
    refused(await refresh(server, caller, body.refresh_token), end);
  }
});

t.test('CLA-27 RFC 7591 §2: Basic and the body are equally good on every endpoint', async (t) => {
  await everywhere(t, {}, basic(c1.id, c1.secret), accepted);
  await everywhere(t, { client_id: c1.id, client_secret: c1.secret }, {}, accepted);
});

t.test('CLA-29 ASVS 15.2.2: a wrong client secret costs no password hashing', async (t) => {
  const rounds = 100;
  const time = async (secret: string) => {
    const start = process.cpuUsage();
    for (let round = 0; round < rounds; round++) await login(server, { id: c1.id, secret });
    const { user, system } = process.cpuUsage(start);
    return (user + system) / rounds;
  };
  const costly = await startServer(t, {
    database: { url: server.databaseUrl, inspect: server.inspect },
    argon2: { memoryKibibytes: 19_456, iterations: 2, parallelism: 1 },
  });
  await login(costly, c1);
  const wrong = await time('wrong');
  const start = process.cpuUsage();
  await login(costly, c1);
  const { user, system } = process.cpuUsage(start);
  t.ok(wrong < (user + system) / 3, `${wrong} µs against ${user + system} µs with a hash`);
});

t.test(
  'CLA-30 interoperability: Basic with an empty secret is method none, as Swagger UI sends it',
  async (t) => {
    const answer = await post(
      `${server.url}/token`,
      endpoints['/token'] as never,
      raw(`${p1.id}:`),
    );
    t.equal(answer.status, 200);
    t.equal(
      (await post(`${server.url}/revoke`, { token: answer.body.access_token }, raw(`${p1.id}:`)))
        .status,
      200,
    );
  },
);
