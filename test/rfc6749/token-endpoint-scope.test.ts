/**
 * Scope in token requests, RFC 6749 §3.3, and which check comes first.
 *
 *   scope       = scope-token *( SP scope-token )
 *   scope-token = 1*( %x21 / %x23-5B / %x5D-7E ), case-sensitive; the order carries no meaning
 *   omitted     the documented default: every scope of the client
 *   error       400 invalid_scope                                                   §5.2
 */
import t, { type Test } from 'tap';
import { type Answer, form, post, send } from '../support/client.ts';
import { isRefused } from '../support/errors.ts';
import { ALICE_PASSWORD, createCast, login, refresh } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t, { isRateLimitOn: false });
const { c1, p1 } = await createCast(server);
const { clients } = server.dependencies;

/** Logs in with a scope that is encoded already. */
const loginWith = (encodedScope: string): Promise<Answer> =>
  send(`${server.url}/token`, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: `${form({
      grant_type: 'password',
      username: 'alice',
      password: ALICE_PASSWORD,
      client_id: p1.id,
    })}&scope=${encodedScope}`,
  });

async function countTokens(): Promise<unknown> {
  const counts =
    'select count(*) as families, sum(cardinality(access_tokens)) as tokens from token_family';
  return (await server.inspect.query(counts)).rows;
}

/** Asks for each scope, by login and by refresh; nothing is issued. */
async function isInvalidScope(t: Test, scopes: readonly string[]): Promise<void> {
  const { body } = await login(server, p1);
  const before = await countTokens();
  for (const scope of scopes) {
    isRefused(t, await login(server, p1, { scope }), 'invalid_scope', JSON.stringify(scope));
    const refused = await refresh(server, p1, body.refresh_token, { scope });
    isRefused(t, refused, 'invalid_scope', `refresh ${JSON.stringify(scope)}`);
  }
  t.strictSame(await countTokens(), before);
}

t.test('SYN-24 RFC 6749 Appendix B: an encoded plus is a plus, a bare one a space', async (t) => {
  for (const encoded of ['read+write', 'read%20write']) {
    const answer = await loginWith(encoded);
    t.equal(answer.status, 200, encoded);
    t.equal(answer.body.scope, 'read write', encoded);
  }
  isRefused(t, await loginWith('read%2Bwrite'), 'invalid_scope');
});

t.test('SYN-25 RFC 6749 §3.2: a parameter without a value counts as omitted', async (t) => {
  const answer = await loginWith('');
  t.equal(answer.status, 200);
  t.equal(answer.body.scope, 'read write');
  isRefused(t, await login(server, p1, { password: '' }), 'invalid_request');
  isRefused(t, await login(server, p1, { username: '' }), 'invalid_request');
  isRefused(t, await refresh(server, p1, ''), 'invalid_request');
});

t.test('SYN-31 RFC 6749 §3.3: a scope outside the grammar is invalid_scope', (t) =>
  isInvalidScope(t, [
    'read"',
    'read\\',
    'réad',
    'read\u00a0write',
    'read\twrite',
    ' ',
    ' read',
    'read ',
    'read  write',
    '\u{1f511}',
  ]),
);

t.test(
  'SYN-32 RFC 6749 §5.2: a scope that is unknown or not the client’s is refused',
  async (t) => {
    await isInvalidScope(t, ['unknown', 'read unknown', 'read,write', '*', 'toString']);
    const grants = { grantTypes: ['password'], clientType: 'public' as const };
    await clients.create({ clientId: 'narrow', ...grants, scope: ['read'] });
    for (const scope of ['write', 'read write']) {
      isRefused(t, await login(server, { id: 'narrow' }, { scope }), 'invalid_scope', scope);
    }
  },
);

t.test('SYN-33 RFC 6749 §3.3: scopes are case-sensitive', (t) =>
  isInvalidScope(t, ['READ', 'Read', 'read WRITE']),
);

t.test('SYN-34 RFC 6749 §3.3: a scope named twice is granted once, in any order', async (t) => {
  for (const scope of ['write read read', 'read write', 'write write read']) {
    const { status, body } = await login(server, p1, { scope });
    t.equal(status, 200, scope);
    t.strictSame(body.scope.split(' ').sort(), ['read', 'write'], scope);
  }
});

t.test('SYN-35 RFC 6749 §3.3: without a scope every scope of the client is granted', async (t) => {
  const { status, body } = await login(server, p1);
  t.equal(status, 200);
  t.equal(body.scope, 'read write');
  const narrowed = await login(server, p1, { scope: 'read' });
  t.equal(narrowed.body.scope, 'read', 'said even where it is what was asked for');
});

t.test('SYN-36 RFC 6749 §4.3.2: the client is judged before the person', async (t) => {
  const limited = await startServer(t, {
    database: { url: server.databaseUrl, inspect: server.inspect },
  });
  const person = { grant_type: 'password', username: 'alice' };
  // More than the ten failed logins a minute that one account has from one address.
  for (let round = 0; round < 6; round++) {
    for (const password of [ALICE_PASSWORD, 'wrong']) {
      const intruder = { ...person, password, client_id: c1.id, client_secret: 'wrong' };
      isRefused(t, await post(`${limited.url}/token`, intruder), 'invalid_client');
    }
  }
  t.equal((await login(limited, c1)).status, 200, 'no failed login was counted');
});
