/**
 * The octets of token requests: application/x-www-form-urlencoded in UTF-8, RFC 6749 Appendix B.
 *
 *   username, password        UNICODECHARNOCRLF: no control characters but TAB        Appendix A.15, A.16
 *   client_id, client_secret,
 *   scope, refresh_token      visible ASCII                                           Appendix A.1 to A.17
 *   errors                    400 invalid_request for what cannot be decoded          §5.2
 */
import t, { type Test } from 'tap';
import { type Answer, basic, form, post, send } from '../support/client.ts';
import { isRefused } from '../support/errors.ts';
import {
  ALICE_PASSWORD,
  createCast,
  introspect,
  login,
  refresh,
  revoke,
} from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t, { isRateLimitOn: false });
const { c1, p1 } = await createCast(server);
const tokenUrl = `${server.url}/token`;

/** A password request that succeeds. */
const valid = {
  grant_type: 'password',
  username: 'alice',
  password: ALICE_PASSWORD,
  client_id: p1.id,
};
const credentials = { client_id: c1.id, client_secret: c1.secret };

/** One request for each place in which a server looks for text: path, parameters, the one to replace. */
const places: [string, Record<string, string>, string][] = [
  ...[...Object.keys(valid), 'client_secret', 'scope', 'device_label', 'client_assertion'].map(
    (name): (typeof places)[number] => ['/token', valid, name],
  ),
  ['/token', { grant_type: 'refresh_token', ...credentials }, 'refresh_token'],
  ...['/revoke', '/introspect'].flatMap((path) =>
    ['token', 'token_type_hint', 'client_id', 'client_secret'].map(
      (name): (typeof places)[number] => [path, { token: 'x', ...credentials }, name],
    ),
  ),
];

/** Sends a body of any octets, given as Latin-1. */
const sendOctets = (path: string, body: string): Promise<Answer> =>
  send(server.url + path, {
    method: 'POST',
    headers: { 'content-type': 'application/x-www-form-urlencoded' },
    body: Buffer.from(body, 'latin1'),
  });

/** Puts encoded text into each parameter of each endpoint; every time the request is refused. */
async function isInvalidEverywhere(t: Test, encoded: string): Promise<void> {
  for (const [path, parameters, name] of places) {
    const body = form({ ...parameters, [name]: 'HERE' }).replace('HERE', encoded);
    isRefused(t, await sendOctets(path, body), 'invalid_request', `${path} ${name}=${encoded}`);
  }
}

t.test('SYN-20 RFC 3986 §2.1: malformed percent escapes are invalid_request', async (t) => {
  for (const encoded of ['%', '%zz', '%1', 'a%', '%%', '%u0041']) {
    await isInvalidEverywhere(t, encoded);
  }
  isRefused(t, await sendOctets('/token', `${form(valid)}&%zz=1`), 'invalid_request', 'in a name');
});

t.test('SYN-21 RFC 3629 §3: octets that are not UTF-8 are refused, not replaced', async (t) => {
  const notUtf8 = ['%FF%FE', '%C0%AE', '%ED%A0%80', '%E2%82', '%F4%90%80%80', '\xff', '\xe9'];
  for (const encoded of notUtf8) await isInvalidEverywhere(t, encoded);
});

t.test('SYN-22 RFC 6749 Appendix A: U+0000 is refused wherever it comes', async (t) => {
  await isInvalidEverywhere(t, 'a%00b');
  for (const [id, secret] of [
    ['C1\0', c1.secret],
    [c1.id, `${c1.secret}\0`],
  ] as const) {
    for (const [path, parameters] of places) {
      const { client_id: _, client_secret: __, ...others } = parameters;
      isRefused(t, await post(server.url + path, others, basic(id, secret)), 'invalid_client');
    }
  }
});

t.test('SYN-23 RFC 6749 Appendix A.15: control characters but TAB are refused', async (t) => {
  for (const encoded of ['a%0Db', 'a%0Ab', 'a%0D%0Ab', '%01', '%1B', '%1F', '%7F', 'a\nb']) {
    await isInvalidEverywhere(t, encoded);
  }
  const password = 'columns\tof words that only tabitha knows';
  await server.dependencies.resourceOwners.create('tabitha', password);
  t.equal((await login(server, p1, { username: 'tabitha', password })).status, 200);
});

t.test('SYN-26 RFC 6749 §3.2: brackets are part of a name like any other character', async (t) => {
  const ignored = await login(server, p1, {
    'scope[]': 'read',
    'scope[a]': 'b',
    'password[]': 'x',
  });
  t.equal(ignored.status, 200);
  t.equal(ignored.body.scope, 'read write');
  const { username: _, ...withoutUsername } = valid;
  for (const name of ['username[]', 'username[$ne]', 'username.x', 'username[username]']) {
    const answer = await post(tokenUrl, { ...withoutUsername, [name]: 'alice' });
    isRefused(t, answer, 'invalid_request', name);
  }
});

t.test('SYN-27 ASVS 15.3.6: names of Object.prototype change nothing, then or later', async (t) => {
  const names = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', '__proto__[scope]'];
  const polluting = Object.fromEntries(names.map((name) => [name, 'x']));
  const pairs = [...Object.entries(valid), ...Object.entries(polluting), ['__proto__', 'y']];
  const answers = [await post(tokenUrl, pairs as [string, string][])];
  for (let round = 0; round < 100; round++) answers.push(await login(server, p1));
  for (const { status, body } of answers) {
    t.equal(status, 200);
    t.strictSame(Object.keys(body), [
      'access_token',
      'token_type',
      'expires_in',
      'refresh_token',
      'scope',
    ]);
    t.equal(body.scope, 'read write');
  }
});

t.test('SYN-28 WHATWG URL §5.1: a semicolon separates nothing', async (t) => {
  const { grant_type: _, ...others } = valid;
  const hidden = `a=b;grant_type=password&${form(others)}`;
  isRefused(t, await sendOctets('/token', hidden), 'invalid_request');
  const joined = form(valid).replace('&', ';');
  isRefused(t, await sendOctets('/token', joined), 'unsupported_grant_type');
});

t.test('SYN-29 ASVS 15.1.3: 2,000 parameters are no work', async (t) => {
  const distinct = Array.from({ length: 2000 }, (_, index) => `p${index.toString(36)}=`);
  const bodies = { distinct, repeated: Array.from({ length: 2000 }, () => 'a=1') };
  for (const [why, parameters] of Object.entries(bodies)) {
    const body = [form(valid), ...parameters].join('&');
    let fastest = Number.POSITIVE_INFINITY;
    for (let round = 0; round < 10; round++) {
      const start = performance.now();
      t.equal((await sendOctets('/token', body)).status, 200, why);
      fastest = Math.min(fastest, performance.now() - start);
    }
    t.ok(fastest < 100, `${why}: ${fastest} ms`);
  }
});

t.test('SYN-30 RFC 6749 §5.2: a token of more than 512 characters is no token', async (t) => {
  const { body: tokens } = await login(server, c1);
  const longer = (token: string, length: number) => token.padEnd(length, 'A');
  for (const length of [512, 513, 10_000]) {
    for (const token of [longer(tokens.refresh_token, length), longer('', length)]) {
      isRefused(t, await refresh(server, c1, token), 'invalid_grant', `${length}`);
      const revocation = await revoke(server, c1, token);
      t.strictSame([revocation.status, revocation.text], [200, '{}'], `${length}`);
      const introspection = await introspect(server, c1, token);
      t.strictSame([introspection.status, introspection.body], [200, { active: false }]);
    }
  }
  t.equal((await refresh(server, c1, tokens.refresh_token)).status, 200, 'nothing was spent');
});

t.test('SYN-37 JSON Schema §6.3.1: a device label has 64 characters at most', async (t) => {
  for (const character of ['x', 'é', '📱']) {
    const label = (length: number) => ({ ...valid, device_label: character.repeat(length) });
    t.equal((await post(tokenUrl, label(64))).status, 200, character);
    isRefused(t, await post(tokenUrl, label(65)), 'invalid_request', character);
  }
});
