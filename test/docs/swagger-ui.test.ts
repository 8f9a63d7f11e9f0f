/** Swagger UI as a newcomer uses it: in a real browser, with the demo, and with what is filled in. */
import { once } from 'node:events';
import { createServer, request } from 'node:http';
import type { AddressInfo } from 'node:net';
import type { BrowserContextOptions, Locator, Page } from 'playwright-core';
import t, { type Test } from 'tap';
import { demo, ensureDemo } from '../../src/demo.ts';
import { launchChromium, needsChromium } from '../support/chromium.ts';
import { basic, send } from '../support/client.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t);
await ensureDemo(server.dependencies);

t.test('the page may load and reach nothing but this server', async (t) => {
  const { status, headers } = await send(`${server.url}/docs`);
  t.equal(status, 200);
  t.match(headers.get('content-type'), /^text\/html/);
  t.strictSame(headers.get('content-security-policy')?.split(';'), [
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data:",
    "connect-src 'self'",
    "object-src 'none'",
    "base-uri 'none'",
    "form-action 'none'",
    "frame-ancestors 'none'",
  ]);
  t.equal(headers.get('referrer-policy'), 'no-referrer');
  t.equal(headers.get('cross-origin-opener-policy'), 'same-origin');
});

t.test('the OpenAPI document is at /docs/json and at /docs/yaml', async (t) => {
  const json = await send(`${server.url}/docs/json`);
  t.strictSame(json.body, server.app.swagger());
  t.equal(json.body.openapi, '3.1.0');
  t.strictSame(json.body.servers, [{ url: '/' }]);
  t.equal(json.body.components.securitySchemes.password.flows.password.tokenUrl, '/token');

  const yaml = await send(`${server.url}/docs/yaml`);
  t.equal(yaml.status, 200);
  t.match(yaml.text, /^openapi: 3\.1\.0$/m);
});

t.test('where the password grant is off, nothing offers it', async (t) => {
  const { url } = await startServer(t, { isPasswordGrantOn: false });
  const { text, body } = await send(`${url}/docs/json`);
  t.strictSame(Object.keys(body.components.securitySchemes), ['client_secret_basic']);
  const { schemas } = body.components;
  const { components } = (await send(`${server.url}/docs/json`)).body;
  t.strictSame(Object.keys(schemas), Object.keys(components.schemas), 'types keep their names');
  t.match(schemas.TokenRequest.properties.grant_type, { description: '`refresh_token`.' });
  t.notMatch(text, /password grant|"username"/i);
});

t.test(
  'MET-11 ASVS 14.3.3: a newcomer logs in, gets tokens and introspects, and nothing is kept',
  needsChromium,
  async (t) => {
    const { page, errors, origins } = await openDocs(t);

    const dialog = await openAuthorizeDialog(page);
    await dialog.locator('#oauth_username').fill(demo.username);
    await dialog.locator('#oauth_password').fill(demo.password);
    await dialog.locator('#client_id_password').fill(demo.clientId);
    const [login] = await Promise.all([
      page.waitForResponse(`${server.url}/token`),
      dialog.getByLabel('Apply given OAuth2 credentials').click(),
    ]);
    t.match(login.request().headers(), basic(demo.clientId, ''));
    t.strictSame(Object.fromEntries(new URLSearchParams(login.request().postData() ?? '')), {
      grant_type: 'password',
      username: demo.username,
      password: demo.password,
    });
    t.equal(login.status(), 200);
    t.match(await login.json(), { access_token: /^hat_/, refresh_token: /^hrt_/ });
    await dialog.getByText('Logout').waitFor();
    await dialog.locator('.close-modal').click();

    const pair = await execute(await openOperation(page, 'token'));
    t.equal(pair.status, '200');
    t.match(pair.body, { access_token: /^hat_/, refresh_token: /^hrt_/, token_type: 'Bearer' });

    await openAuthorizeDialog(page);
    await dialog.locator('#auth-basic-username').fill(demo.apiClientId);
    await dialog.locator('#auth-basic-password').fill(demo.apiClientSecret);
    await dialog.getByLabel('Apply credentials').click();
    await dialog.locator('.close-modal').click();

    const introspect = await openOperation(page, 'introspect');
    await introspect.getByPlaceholder('token', { exact: true }).fill(pair.body.access_token);
    const introspection = await execute(introspect);
    t.equal(introspection.status, '200');
    t.match(introspection.body, { active: true, client_id: demo.clientId, scope: 'read write' });

    const another = await execute(page.locator('#operations-OAuth-token'));
    t.equal(another.status, '200', 'the form names its client, whichever introspects');
    const revoke = await openOperation(page, 'revoke');
    await revoke.getByPlaceholder('token', { exact: true }).fill(pair.body.refresh_token);
    await revoke.getByPlaceholder('client_id', { exact: true }).fill(demo.clientId);
    t.equal((await execute(revoke)).status, '200');
    t.strictSame((await execute(introspect)).body, { active: false });

    t.strictSame(errors, [], 'nothing is blocked and nothing fails');
    t.strictSame([...origins], [server.url], 'no other origin is asked for anything');
    t.strictSame(
      await page.evaluate('[{ ...localStorage }, { ...sessionStorage }, document.cookie]'),
      [{}, {}, ''],
    );
  },
);

t.test('a 401 is shown, and the browser does not ask for a password', needsChromium, async (t) => {
  // Whatever the browser asks for, it gets: only a question that is never put leaves the 401.
  const httpCredentials = { username: demo.apiClientId, password: demo.apiClientSecret };
  const { page } = await openDocs(t, { httpCredentials });
  const introspect = await openOperation(page, 'introspect');
  await introspect.getByPlaceholder('token', { exact: true }).fill('any');
  const { status, body } = await execute(introspect);
  t.equal(status, '401');
  t.equal(body.error, 'invalid_client');
});

t.test('below the path of the issuer, which a proxy strips', needsChromium, async (t) => {
  const below = await startServer(t, { issuer: 'http://127.0.0.1/auth' });
  await ensureDemo(below.dependencies);
  const { page, errors } = await openDocs(t, {}, `${await startStrippingProxy(t, below.url)}/auth`);
  const pair = await execute(await openOperation(page, 'token'));
  t.equal(pair.status, '200');
  await openAuthorizeDialog(page);
  await page.locator('.dialog-ux').getByText('/auth/token', { exact: true }).waitFor();
  t.strictSame(errors, []);
});

/** Forwards what is below `/auth`, without it, and nothing else. */
async function startStrippingProxy(t: Test, target: string): Promise<string> {
  const proxy = createServer((incoming, answer) => {
    const { url = '', method = '', headers } = incoming;
    if (!url.startsWith('/auth/')) {
      answer.writeHead(404).end();
      return;
    }
    const forward = request(target + url.slice('/auth'.length), { method, headers }, (response) => {
      answer.writeHead(response.statusCode ?? 502, response.headers);
      response.pipe(answer);
    });
    incoming.pipe(forward);
  }).listen(0, '127.0.0.1');
  await once(proxy, 'listening');
  t.teardown(() => proxy.close());
  return `http://127.0.0.1:${(proxy.address() as AddressInfo).port}`;
}

interface Docs {
  readonly page: Page;
  /** What the console complained about; violations of the content security policy are among it. */
  readonly errors: string[];
  /** Where requests went. */
  readonly origins: Set<string>;
}

async function openDocs(
  t: Test,
  options: BrowserContextOptions = {},
  url: string = server.url,
): Promise<Docs> {
  const browser = await launchChromium(t);
  const page = await browser.newPage(options);
  const errors: string[] = [];
  const origins = new Set<string>();
  page.on('console', (message) => {
    if (['error', 'warning'].includes(message.type())) errors.push(message.text());
  });
  page.on('pageerror', (error) => errors.push(error.message));
  page.on('request', (request) => origins.add(new URL(request.url()).origin));
  await page.goto(`${url}/docs`);
  return { page, errors, origins };
}

async function openAuthorizeDialog(page: Page): Promise<Locator> {
  await page.getByRole('button', { name: 'Authorize', exact: true }).click();
  return page.locator('.dialog-ux');
}

async function openOperation(page: Page, operationId: string): Promise<Locator> {
  const operation = page.locator(`#operations-OAuth-${operationId}`);
  await operation.locator('.opblock-summary-control').click();
  return operation;
}

/** Sends what is in the fields, and reads the answer off the page. */
async function execute(operation: Locator) {
  await operation.getByRole('button', { name: 'Execute' }).click();
  const response = operation.locator('.live-responses-table .response');
  return {
    status: await response.locator('.response-col_status').innerText(),
    body: JSON.parse(await response.locator('code').first().innerText()),
  };
}
