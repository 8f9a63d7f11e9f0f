/**
 * The shape of token requests, RFC 6749 §3.2, §4.3.2 and §5.
 *
 *   request   POST, application/x-www-form-urlencoded in UTF-8, each parameter at most once
 *             grant_type (REQUIRED); username, password, scope or refresh_token, scope;
 *             unrecognized parameters are ignored, parameters without a value count as omitted
 *   response  access_token, token_type (REQUIRED), expires_in, refresh_token, scope       §5.1
 *   errors    400 invalid_request, unsupported_grant_type, 401 invalid_client             §5.2
 */
import t from 'tap';
import { type Answer, form, type Parameters, post, send } from '../support/client.ts';
import { hasFailed, isRefused } from '../support/errors.ts';
import { ALICE_PASSWORD, createCast, login, refresh } from '../support/fixtures.ts';
import { exchangeOne, request } from '../support/raw.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t, { isRateLimitOn: false });
const cast = await createCast(server);
const { clients } = server.dependencies;
const { c1, p1 } = cast;

const tokenUrl = `${server.url}/token`;
const FORM = 'application/x-www-form-urlencoded';

/** A password request that succeeds. */
const valid = {
  grant_type: 'password',
  username: 'alice',
  password: ALICE_PASSWORD,
  client_id: p1.id,
};
const { grant_type: _, ...withoutGrantType } = valid;

/** A request that succeeds but for these parameters. */
const ask = (parameters: Record<string, string>) => post(tokenUrl, { ...valid, ...parameters });

/** The same with parameters added, which may repeat names. */
const add = (...pairs: [string, string][]) => post(tokenUrl, [...Object.entries(valid), ...pairs]);

/** Sends a body as it is. */
const sendBody = (
  body: string | Uint8Array<ArrayBuffer>,
  headers: Record<string, string> = { 'content-type': FORM },
  url = tokenUrl,
): Promise<Answer> =>
  send(url, { method: 'POST', headers, body: typeof body === 'string' ? encode(body) : body });

/** As octets, for which fetch adds no content type. */
const encode = (text: string) => new TextEncoder().encode(text);

t.test('SYN-01 RFC 6749 §5.1: a valid request is answered with tokens', async (t) => {
  const withRefresh = await login(server, c1);
  t.equal(withRefresh.status, 200);
  const { access_token, refresh_token, ...others } = withRefresh.body;
  t.match(access_token, /^hat_[\w-]{70}$/);
  t.match(refresh_token, /^hrt_[\w-]{91}$/);
  t.strictSame(others, { token_type: 'Bearer', expires_in: 900, scope: 'read write' });

  await clients.create({
    clientId: 'no-refresh',
    clientType: 'public',
    grantTypes: ['password'],
    scope: ['read'],
  });
  const withoutRefresh = await login(server, { id: 'no-refresh' });
  t.equal(withoutRefresh.status, 200);
  t.strictSame(Object.keys(withoutRefresh.body).sort(), [
    'access_token',
    'expires_in',
    'scope',
    'token_type',
  ]);
});

t.test('SYN-02 RFC 6749 §5.2: a missing grant_type is invalid_request', async (t) => {
  isRefused(t, await post(tokenUrl, withoutGrantType), 'invalid_request');
});

t.test('SYN-03 RFC 6749 §3.2: an empty grant_type counts as omitted', async (t) => {
  isRefused(t, await ask({ grant_type: '' }), 'invalid_request');
});

t.test('SYN-04 RFC 6749 §5.2: an unknown grant_type is unsupported_grant_type', async (t) => {
  for (const grantType of ['foo', 'urn:x:y', 'authorization_code', 'toString', '__proto__']) {
    isRefused(t, await ask({ grant_type: grantType }), 'unsupported_grant_type', grantType);
  }
});

t.test('SYN-05 RFC 6749 §1.9: grant types are case-sensitive and not trimmed', async (t) => {
  for (const grantType of ['Password', 'REFRESH_TOKEN', 'password ', ' password', 'password\t']) {
    isRefused(t, await ask({ grant_type: grantType }), 'unsupported_grant_type', grantType);
  }
});

t.test('SYN-06 RFC 6749 §1.9: parameter names are case-sensitive', async (t) => {
  for (const name of ['Grant_Type', 'GRANT_TYPE', 'grant_type ', 'grant-type']) {
    const answer = await post(tokenUrl, { ...withoutGrantType, [name]: 'password' });
    isRefused(t, answer, 'invalid_request', name);
  }
});

t.test('SYN-07 RFC 6749 §3.2: a parameter sent twice is invalid_request', async (t) => {
  const credentials = { client_id: c1.id, client_secret: c1.secret };
  const { body: tokens } = await login(server, c1);
  const requests: [string, Record<string, string>][] = [
    ['/token', { ...valid, ...credentials, scope: 'read', device_label: 'x' }],
    ['/token', { ...valid, ...credentials, client_assertion_type: 'x' }],
    ['/token', { grant_type: 'refresh_token', refresh_token: tokens.refresh_token, scope: 'read' }],
    ['/revoke', { ...credentials, token: tokens.refresh_token, token_type_hint: 'refresh_token' }],
    ['/introspect', { ...credentials, token: tokens.access_token, token_type_hint: 'x' }],
  ];
  for (const [path, parameters] of requests) {
    for (const [name, value] of Object.entries(parameters)) {
      for (const again of [value, 'another', '']) {
        const pairs: Parameters = [...Object.entries(parameters), [name, again]];
        isRefused(t, await post(server.url + path, pairs), 'invalid_request', `${path} ${name}`);
      }
    }
  }
  t.equal((await refresh(server, c1, tokens.refresh_token)).status, 200, 'nothing was spent');
});

t.test('SYN-08 RFC 6749 §3.2: a repeat is a repeat even when one value is empty', async (t) => {
  isRefused(t, await add(['scope', ''], ['scope', 'read']), 'invalid_request');
  isRefused(t, await add(['scope', ''], ['scope', '']), 'invalid_request');
});

t.test('SYN-09 RFC 6749 §3.2: an unrecognised parameter is ignored', async (t) => {
  t.equal((await ask({ foo: 'bar' })).status, 200);
});

t.test('SYN-10 RFC 6749 §3.2: so is one that is sent twice', async (t) => {
  t.equal((await add(['foo', '1'], ['foo', '2'])).status, 200);
  t.equal((await add(['resource', 'https://a'], ['resource', 'https://b'])).status, 200);
});

t.test('SYN-11 RFC 6749 §2.3.1: parameters in the query are never read', async (t) => {
  const url = `${tokenUrl}?${form(valid)}`;
  isRefused(t, await send(url, { method: 'POST' }), 'invalid_request');
  isRefused(t, await sendBody('', { 'content-type': FORM }, url), 'invalid_request');
});

t.test('SYN-12 RFC 6749 §2.3.1: client credentials in the query are not credentials', async (t) => {
  const { client_id: _, ...grant } = valid;
  const query = form({ client_id: c1.id, client_secret: c1.secret });
  isRefused(t, await post(`${tokenUrl}?${query}`, grant), 'invalid_client');
});

t.test('SYN-13 ASVS 15.3.7: the body alone decides, whatever the query says', async (t) => {
  const query = form({ grant_type: 'refresh_token', client_id: 'nobody', scope: 'unknown' });
  const answer = await post(`${tokenUrl}?${query}`, valid);
  t.equal(answer.status, 200);
  t.equal(answer.body.scope, 'read write');
});

t.test('SYN-14 RFC 6749 §4.3.2: JSON is 415', async (t) => {
  for (const type of ['application/json', 'application/json; charset=utf-8']) {
    for (const body of [JSON.stringify(valid), form(valid)]) {
      hasFailed(t, await sendBody(body, { 'content-type': type }), 415, 'invalid_request', type);
    }
  }
});

t.test('SYN-15 RFC 6749 Appendix B: so is every other type, and none', async (t) => {
  const types = ['text/plain', 'application/xml', `${FORM}-x`, 'text/plain;a=application/json'];
  for (const type of [...types, '*/*', 'nonsense', ', ,']) {
    const answer = await sendBody(form(valid), { 'content-type': type });
    hasFailed(t, answer, 415, 'invalid_request', type);
  }
  hasFailed(t, await sendBody(form(valid), {}), 415, 'invalid_request');
  const multipart = new FormData();
  for (const [name, value] of Object.entries(valid)) multipart.append(name, value);
  const answer = await send(tokenUrl, { method: 'POST', body: multipart });
  hasFailed(t, answer, 415, 'invalid_request');
});

t.test('SYN-16 RFC 9110 §8.3.1: UTF-8 in any spelling of the media type', async (t) => {
  const types = ['', ';charset=UTF-8', '; charset="utf-8"', ' ; Charset=utf-8', ';', ';v=1'];
  for (const type of [...types.map((rest) => FORM + rest), FORM.toUpperCase()]) {
    const answer = await sendBody(form(valid), { 'content-type': type });
    t.equal(answer.status, 200, type);
  }
});

t.test('SYN-17 RFC 6749 §4.3.2: another charset is 415, also as one of two', async (t) => {
  const charsets = ['iso-8859-1', '"iso-8859-1"', 'utf-16', 'us-ascii', 'utf8', 'utf-8x', ''];
  const two = ['utf-8; charset=iso-8859-1', 'iso-8859-1; charset=utf-8'];
  for (const charset of [...charsets, ...two]) {
    const answer = await sendBody(form(valid), { 'content-type': `${FORM}; charset=${charset}` });
    hasFailed(t, answer, 415, 'invalid_request', charset);
  }
  const hidden = `${FORM}; x="; charset=utf-8"; charset=iso-8859-1`;
  const answer = await sendBody(form(valid), { 'content-type': hidden });
  hasFailed(t, answer, 415, 'invalid_request', hidden);
});

t.test('SYN-18 RFC 6749 §5.2: no body is invalid_request, with or without a type', async (t) => {
  isRefused(t, await send(tokenUrl, { method: 'POST' }), 'invalid_request');
  isRefused(t, await sendBody(''), 'invalid_request');
  for (const headers of [{}, { 'Content-Type': FORM }]) {
    isRefused(t, await exchangeOne(server.url, request('POST /token', headers)), 'invalid_request');
  }
});

t.test('SYN-19 RFC 6749 §5.2: a body of separators is invalid_request', async (t) => {
  for (const body of ['&&&=&==&', '&', '=', '=&=', '%', 'grant_type', 'grant_type&password']) {
    isRefused(t, await sendBody(body), 'invalid_request', body);
  }
});
