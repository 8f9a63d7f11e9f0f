/** `npm run example`: an authorization server, an API and a page that uses both, until Ctrl-C. */
import { join } from 'node:path';
import { demo } from '../../demo.ts';
import { buildPageServer, type Servers } from './page-server.ts';
import { superviseProcesses } from './processes.ts';

const ROOT = join(import.meta.dirname, '../../..');
const LAUNCHER = join(ROOT, 'src/heirloom.js');
const clientId = 'example-web';
const { env } = process;

const processes = superviseProcesses(ROOT);
await start().catch((error: Error) => {
  if (processes.stopping.aborted) return;
  process.stderr.write(`Cannot start: ${error.message}\n`);
  processes.stop(1);
});

async function start(): Promise<void> {
  let servers: Servers | undefined;
  const page = buildPageServer(() => {
    if (servers === undefined) throw new Error('not ready');
    return servers;
  });
  const origin = await page.listen({
    host: '127.0.0.1',
    port: Number(env['PAGE_PORT'] ?? 8080),
    signal: processes.stopping,
  });

  const authorizationServer = await processes.start([LAUNCHER, 'serve'], env);
  await registerApp(origin);
  const api = await processes.start([join(ROOT, 'src/resource-server/example/api.ts')], {
    ...env,
    PORT: env['API_PORT'] ?? '3001',
    APP_ORIGIN: origin,
    INTROSPECTION_ENDPOINT: `${authorizationServer}/introspect`,
    CLIENT_ID: demo.apiClientId,
    CLIENT_SECRET: demo.apiClientSecret,
  });
  // Behind a proxy the browser has to go where everybody goes.
  servers = { authorizationServer: env['ISSUER'] ?? authorizationServer, api, clientId };
  process.stdout.write(
    `\nOpen ${origin} and log in as ${demo.username} with the password "${demo.password}".\n` +
      `The API is at ${api}, the authorization server at ${authorizationServer}.\n`,
  );
}

/** Registers the page's client, or tells the one of an earlier run where the page is. */
async function registerApp(origin: string): Promise<void> {
  const heirloom = (...words: readonly string[]) =>
    processes.run([LAUNCHER, 'client', ...words], env);
  const grants = ['--grant', 'password', '--grant', 'refresh_token'];
  const settings = [...grants, '--scope', 'read', '--scope', 'write', '--origin', origin];
  const clients: readonly { client_id: string }[] = JSON.parse(await heirloom('list', '--json'));
  if (clients.some(({ client_id }) => client_id === clientId)) {
    await heirloom('update', clientId, '--origin', origin);
  } else {
    await heirloom(
      'create',
      '--id',
      clientId,
      '--type',
      'public',
      '--delivery',
      'cookie',
      ...settings,
    );
  }
}
