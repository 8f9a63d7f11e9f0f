/**
 * `npm run example` in a real browser: the page, the API and the authorization server as a person meets
 * them, with a network that can lose an answer between the server and the browser.
 */
import { join } from 'node:path';
import type { BrowserContext, Page } from 'playwright-core';
import t, { type Test } from 'tap';
import { demo } from '../../src/demo.ts';
import { listen } from '../resource-server/apis.ts';
import { launchChromium, needsChromium } from '../support/chromium.ts';
import { post } from '../support/client.ts';
import { matchEach } from '../support/match.ts';
import { freePort } from '../support/port.ts';
import { CHECKOUT, serve, temporaryDirectory } from '../support/process.ts';
import { startProxy } from '../support/proxy.ts';

/** Long enough for a few clicks, short enough to wait for its end. */
const ACCESS_TOKEN_LIFETIME_SECONDS = 4;
const RETRY_WINDOW_SECONDS = 2;
/** Wider than any screen. */
const LONG_WORD = 'x'.repeat(900);

interface Example {
  readonly page: string;
  readonly api: string;
  readonly authorizationServer: string;
  /** Cuts the connection as soon as the server answers a refresh, before the browser reads a byte. */
  loseNextAnswer(): void;
  /** The server's log lines in which a member has this value. */
  logged(name: 'event' | 'code', value: string): readonly Record<string, unknown>[];
}

async function startExample(t: Test): Promise<Example> {
  const port = await freePort();
  let isLosing = false;
  const proxy = await startProxy(t, `http://127.0.0.1:${port}`, (chunk) => {
    if (!isLosing || !chunk.includes('set-cookie: __Host-')) return;
    isLosing = false;
    proxy.cut();
    proxy.restore();
  });
  const authorizationServer = new URL(proxy.url).origin;
  const processes = await serve(
    t,
    {
      env: {
        PORT: String(port),
        API_PORT: '0',
        PAGE_PORT: '0',
        DATA_DIR: temporaryDirectory(t),
        ISSUER: authorizationServer,
        ACCESS_TOKEN_LIFETIME: String(ACCESS_TOKEN_LIFETIME_SECONDS),
        RETRY_WINDOW: String(RETRY_WINDOW_SECONDS),
      },
    },
    [process.execPath, join(CHECKOUT, 'src/client/example/run.ts')],
  );
  const said = await until(() =>
    /Open (\S+) .*\nThe API is at (\S+),/.exec(processes.output.stdout),
  );
  const [, page = '', api = ''] = said;
  return {
    page,
    api,
    authorizationServer,
    loseNextAnswer: () => {
      isLosing = true;
    },
    logged: (name, value) =>
      processes.output.stdout
        .split('\n')
        .filter((line) => line.startsWith('{'))
        .map((line) => JSON.parse(line))
        .filter((line) => line[name] === value),
  };
}

async function until<T>(look: () => Promise<T | false> | T | null | false): Promise<T> {
  for (;;) {
    const seen = await look();
    if (seen) return seen;
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
}

/**
 * A page that tries what other pages can: requests that need no preflight, with the cookie, one that does
 * need it, and a form. From the same host it is of the same site, like a sibling subdomain, so that the
 * cookie goes along; from the other it is of another site.
 */
async function startForger(t: Test, authorizationServer: string): Promise<readonly string[]> {
  const script = `
    const body = new URLSearchParams({ grant_type: 'refresh_token', client_id: 'example-web' });
    const init = { method: 'POST', credentials: 'include', body };
    const attempts = [
      ['/token', init],
      ['/token', { ...init, mode: 'no-cors' }],
      ['/token', { ...init, headers: { 'x-heirloom-csrf': '1' } }],
      ['/revoke', { ...init, mode: 'no-cors' }],
    ];
    for (const [path, init] of attempts) {
      await fetch('${authorizationServer}' + path, init).catch(() => {});
    }
    document.querySelector('p').textContent = 'done';`;
  const html = `<p></p><form method="post" action="${authorizationServer}/revoke">
    <input name="client_id" value="example-web"><button>A prize!</button></form>
    <script type="module">${script}</script>`;
  const url = await listen(t, (_request, response) =>
    response.setHeader('content-type', 'text/html').end(html),
  );
  return [url, url.replace('127.0.0.1', 'localhost')];
}

const wait = (seconds: number) => new Promise((resolve) => setTimeout(resolve, seconds * 1000));

const says = (page: Page, text: RegExp) =>
  page.getByRole('status').filter({ hasText: text }).waitFor();

async function logIn(page: Page): Promise<void> {
  await page.getByLabel('Name').fill(demo.username);
  await page.getByLabel('Password').fill(demo.password);
  await page.getByRole('button', { name: 'Log in' }).click();
  await says(page, /^Signed in\./);
}

/** Reads the notes, and waits until the API has answered this very click. */
const read = (page: Page, api: string) =>
  Promise.all([
    page.waitForResponse(
      (response) => response.url() === `${api}/notes` && response.status() === 200,
    ),
    page.getByRole('button', { name: 'Read again' }).click(),
  ]);

/** Every request of all tabs: where tokens went. */
function watch(context: BrowserContext) {
  const urls: string[] = [];
  const bearers: string[] = [];
  const grants: string[] = [];
  const complaints: string[] = [];
  context.on('request', (request) => {
    urls.push(request.url());
    const { authorization } = request.headers();
    if (authorization !== undefined) bearers.push(authorization.slice('Bearer '.length));
    const grant = new URLSearchParams(request.postData() ?? '').get('grant_type');
    if (grant !== null) grants.push(grant);
  });
  context.on('weberror', (error) => complaints.push(error.error().message));
  return { urls, bearers, grants, complaints };
}

/** Whatever script on the page could get hold of. */
const withinReach = (page: Page) =>
  page.evaluate(`(async () => JSON.stringify([
    { ...localStorage }, { ...sessionStorage }, document.cookie, location.href, history.state,
    window.name, await indexedDB.databases(), await caches.keys(), document.documentElement.outerHTML,
  ]))()`) as Promise<string>;

t.test('the life of a session in a browser', needsChromium, async (t) => {
  const example = await startExample(t);
  const { api, authorizationServer } = example;
  const browser = await launchChromium(t);
  const context = await browser.newContext();
  const seen = watch(context);
  const one = await context.newPage();
  const refreshes = () => seen.grants.filter((grant) => grant === 'refresh_token').length;
  const cookie = async () => {
    const cookies = await context.cookies(authorizationServer);
    return cookies.find(({ name }) => name.startsWith('__Host-heirloom_refresh_'));
  };

  await t.test('nobody is signed in at first; a login shows what the API has', async (t) => {
    await one.goto(example.page.replace('127.0.0.1', 'localhost'));
    await says(one, /^Please log in\./);
    t.equal(new URL(one.url()).origin, example.page, 'the one that may ask for tokens');
    await one.getByLabel('Name').fill(demo.username);
    await one.getByLabel('Password').fill('not the password at all');
    await one.getByRole('button', { name: 'Log in' }).click();
    await says(one, /^Wrong name or password\./);
    t.equal(await one.getByLabel('Name').inputValue(), demo.username, 'nobody types it twice');
    await logIn(one);
    t.match(await cookie(), { httpOnly: true, secure: true, sameSite: 'Strict', path: '/' });
    await one.getByLabel('Note').fill('buy milk');
    await one.getByRole('button', { name: 'Write' }).click();
    await one.getByText('buy milk').waitFor();
  });

  await t.test(
    'another tab is signed in too, and neither has to log in after a reload',
    async () => {
      const two = await context.newPage();
      await two.goto(example.page);
      await two.getByText('buy milk').waitFor();
      await one.reload();
      await one.getByText('buy milk').waitFor();
    },
  );
  const [, two] = context.pages() as [Page, Page];

  await t.test('two tabs whose token expired refresh at once, and get one successor', async (t) => {
    await wait(ACCESS_TOKEN_LIFETIME_SECONDS + 1);
    const before = refreshes();
    const spent = (await cookie())?.value;
    seen.bearers.length = 0;
    await Promise.all([read(one, api), read(two, api)]);
    t.equal(refreshes() - before, 1);
    t.equal(seen.bearers.length, 2);
    t.equal(new Set(seen.bearers).size, 1, 'both show the API the same token');
    t.not((await cookie())?.value, spent);
  });

  await t.test('an answer that the network loses signs nobody out', async (t) => {
    await wait(ACCESS_TOKEN_LIFETIME_SECONDS + 1);
    const spent = (await cookie())?.value;
    example.loseNextAnswer();
    await read(one, api);
    t.not((await cookie())?.value, spent);
    // By the client, or by the browser itself, which repeats what a kept connection has swallowed.
    t.equal(example.logged('event', 'refresh_retry').length, 1, 'asked again with the same cookie');
    const before = refreshes();
    await read(two, api);
    t.equal(refreshes(), before, 'the other tab has it too');
  });

  await t.test('a note that cannot be sent can be sent again', async (t) => {
    const note = one.getByLabel('Note');
    await context.setOffline(true);
    await note.fill(LONG_WORD);
    await one.getByRole('button', { name: 'Write' }).click();
    await says(one, /fetch/);
    t.equal(await note.inputValue(), LONG_WORD);
    await context.setOffline(false);
    await one.getByRole('button', { name: 'Write' }).click();
    await one.getByText(LONG_WORD).waitFor();
    t.ok(await one.evaluate('document.documentElement.scrollWidth <= innerWidth'), 'it is broken');
  });

  await t.test('nothing that holds a token is within reach of a script or in a URL', async (t) => {
    for (const page of [one, two]) t.notMatch(await withinReach(page), /h[ar]t_/);
    for (const url of seen.urls) t.notMatch(url, /h[ar]t_|token=/);
  });

  await t.test(
    'a stolen copy of the cookie, shown after the window, ends the session',
    async (t) => {
      const stolen = await cookie();
      await wait(ACCESS_TOKEN_LIFETIME_SECONDS + 1);
      await read(one, api);
      t.not((await cookie())?.value, stolen?.value);
      await wait(RETRY_WINDOW_SECONDS + 1);
      const theft = await post(
        `${authorizationServer}/token`,
        { grant_type: 'refresh_token', client_id: 'example-web' },
        {
          cookie: `${stolen?.name}=${stolen?.value}`,
          origin: example.page,
          'x-heirloom-csrf': '1',
        },
      );
      t.equal(theft.status, 400);
      t.equal(theft.body.error, 'invalid_grant');
      await two.getByRole('button', { name: 'Read again' }).click();
      await Promise.all([one, two].map((page) => says(page, /^Your session has ended\./)));
      t.equal(await cookie(), undefined);
      matchEach(t, example.logged('event', 'refresh_token_replay'), [
        { level: 40, clientId: 'example-web' },
      ]);
    },
  );

  await t.test('after a logout the cookie is gone and the API refuses', async (t) => {
    await logIn(one);
    await says(two, /^Signed in\./);
    const token = seen.bearers.at(-1) ?? '';
    const headers = { authorization: `Bearer ${token}` };
    t.equal((await fetch(`${api}/notes`, { headers })).status, 200);
    await one.getByRole('button', { name: 'Log out' }).click();
    await Promise.all([one, two].map((page) => says(page, /^You are logged out\./)));
    for (const page of [one, two]) t.notMatch(await page.content(), LONG_WORD, 'forgotten');
    await until(async () => (await cookie()) === undefined);
    t.equal((await fetch(`${api}/notes`, { headers })).status, 401);
    await one.reload();
    await says(one, /^Please log in\./);
  });

  await t.test('no page can use the cookie but the app', async (t) => {
    await logIn(one);
    const value = (await cookie())?.value;
    for (const origin of await startForger(t, authorizationServer)) {
      const before = example.logged('code', 'access_denied').length;
      const forger = await context.newPage();
      await forger.goto(origin);
      await forger.getByText('done').waitFor();
      await forger.getByRole('button').click();
      await forger.waitForURL(`${authorizationServer}/revoke`);
      await forger.close();
      // The one with the header ends at the preflight.
      const refused = example.logged('code', 'access_denied').length - before;
      t.equal(refused, 4, origin);
    }
    t.equal((await cookie())?.value, value, 'neither spent nor cleared');
    await wait(ACCESS_TOKEN_LIFETIME_SECONDS + 1);
    await read(one, api);
    await says(one, /^Signed in\./);
  });

  t.strictSame(seen.complaints, []);
});
