/** `npm run example`: an authorization server, an API and a page that uses both, until Ctrl-C. */
import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { promisify } from 'node:util';
import { demo } from '../../demo.ts';
import { buildPageServer, type Servers } from './page-server.ts';

const ROOT = join(import.meta.dirname, '../../..');
const LAUNCHER = join(ROOT, 'src/heirloom.js');
const clientId = 'example-web';
const { env } = process;

const children: ChildProcess[] = [];
let isStopping = false;
const stop = (code: number, signal?: NodeJS.Signals): void => {
  if (isStopping) return;
  isStopping = true;
  process.exitCode = code;
  page.close();
  // Ctrl-C reaches all of a terminal's processes by itself, and twice means at once.
  if (signal !== 'SIGINT') for (const child of children) child.kill('SIGTERM');
};
process.on('SIGINT', () => stop(0, 'SIGINT'));
process.on('SIGTERM', () => stop(0, 'SIGTERM'));

let servers: Servers | undefined;
const page = buildPageServer(() => {
  if (servers === undefined) throw new Error('not ready');
  return servers;
});
const origin = await page.listen({ host: '127.0.0.1', port: Number(env['PAGE_PORT'] ?? 8080) });

const authorizationServer = await start([LAUNCHER, 'serve'], env);
await registerApp();
const api = await start([join(ROOT, 'src/resource-server/example/api.ts')], {
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

/** Starts a process and resolves with its URL, when it says where it listens. */
async function start(words: readonly string[], environment: NodeJS.ProcessEnv): Promise<string> {
  const child = spawn(process.execPath, words, {
    cwd: ROOT,
    env: environment,
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  children.push(child);
  child.once('exit', (code) => stop(code ?? 1));
  const lines = createInterface({ input: child.stdout });
  return new Promise((resolve) => {
    lines.on('line', (line) => {
      process.stdout.write(`${line}\n`);
      const url = / listening on (\S+)$/.exec(line)?.[1];
      if (url !== undefined) resolve(url);
    });
  });
}

/** Registers the page's client, or tells the one of an earlier run where the page is. */
async function registerApp(): Promise<void> {
  const heirloom = (...words: readonly string[]) =>
    promisify(execFile)(process.execPath, [LAUNCHER, 'client', ...words], { cwd: ROOT, env });
  const grants = ['--grant', 'password', '--grant', 'refresh_token'];
  const settings = [...grants, '--scope', 'read', '--scope', 'write', '--origin', origin];
  const { stdout } = await heirloom('list', '--json');
  const clients: readonly { client_id: string }[] = JSON.parse(stdout);
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
