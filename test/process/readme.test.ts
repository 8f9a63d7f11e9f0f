/** The README is true: its shell blocks, pasted unchanged into a POSIX shell, do what it says. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { loadConfig } from '../../src/config.ts';
import { CHECKOUT, run, serve, temporaryDirectory } from '../support/process.ts';

const readme = readFileSync(join(CHECKOUT, 'README.md'), 'utf8');

t.test('the walk with curl logs in, introspects, refreshes and logs out', async (t) => {
  const { url, output } = await serve(t, { env: { DATA_DIR: temporaryDirectory(t) } });
  t.equal(output.stdout.match(/listening/g)?.length, 1, 'the ready line comes once');
  t.match(output.stdout, `curl -s ${url}/token`, 'the banner has a line to paste');

  const blocks = [...readme.matchAll(/```sh\n(.*?)```/gs)].map(([, block]) => block as string);
  // A marker between the blocks tells their outputs apart.
  const script = blocks.join("printf '\\n--\\n'\n");
  const { code, stdout, stderr } = await run('sh', ['-eu'], {
    input: script,
    env: { HEIRLOOM: url },
  });
  t.equal(code, 0, stderr);
  const [login, introspection, refreshed, afterLogout] = stdout.split('--\n') as [
    string,
    string,
    string,
    string,
  ];
  t.match(JSON.parse(login), {
    access_token: /^hat_/,
    refresh_token: /^hrt_/,
    token_type: 'Bearer',
    expires_in: 900,
    scope: 'read write',
  });
  t.match(JSON.parse(introspection), { active: true, client_id: 'demo', iss: url });
  const [tokens, active] = refreshed.trim().split('\n') as [string, string];
  t.match(JSON.parse(tokens), { refresh_token: /^hrt_/ });
  t.not(JSON.parse(tokens).refresh_token, JSON.parse(login).refresh_token);
  t.match(JSON.parse(active), { active: true });
  t.equal(afterLogout.trim(), '{"active":false}');
});

t.test('the quick start and the test line are the scripts of package.json', async (t) => {
  const { scripts } = JSON.parse(readFileSync(join(CHECKOUT, 'package.json'), 'utf8'));
  t.match(readme, '\nnpm ci && npm start\n');
  t.match(readme, '\nnpm ci && npm test\n');
  t.ok(scripts.start && scripts.test);
  const ci = readFileSync(join(CHECKOUT, '.ci/run'), 'utf8');
  t.match(ci, "\ntested sh -c 'npm ci && npm test'\n");
});

t.test(
  'the table of configuration names every variable that is read, and only those',
  async (t) => {
    const read = new Set<string>();
    loadConfig(
      new Proxy<Record<string, string | undefined>>(
        {},
        {
          get: (_, name) => {
            read.add(String(name));
            return undefined;
          },
        },
      ),
    );
    const documented = [...readme.matchAll(/^\| `([A-Z_]+)` \|/gm)].map(([, name]) => name);
    t.strictSame(documented.sort(), [...read].sort());
  },
);
