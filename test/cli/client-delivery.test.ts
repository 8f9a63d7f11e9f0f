/** `--delivery` and `--origin`: who may have the refresh token in a cookie, and whose scripts are its own. */
import t from 'tap';
import { matchEach } from '../support/match.ts';
import { heirloom } from '../support/process.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t);
const { clients } = server.dependencies;
const env = { DATABASE_URL: server.databaseUrl };

async function json(words: readonly string[]) {
  const { code, stdout, stderr } = await heirloom([...words, '--json'], { env });
  t.equal(code, 0, `${words.join(' ')}: ${stderr}`);
  return JSON.parse(stdout);
}

t.test('a client is put into cookie mode, and taken out of it', async (t) => {
  const create = ['client', 'create', '--id', 'web', '--type', 'public', '--scope', 'read'];
  const cookie = ['--delivery', 'cookie', '--origin', 'https://app.example'];
  t.match(await json([...create, '--grant', 'password', ...cookie]), {
    delivery: 'cookie',
    origins: ['https://app.example'],
  });
  const origins = ['http://localhost:5173', 'http://127.0.0.1:8080', 'http://[::1]:1'];
  const update = ['client', 'update', 'web', ...origins.flatMap((each) => ['--origin', each])];
  t.match(await json(update), { delivery: 'cookie', origins });
  t.match(await json(['client', 'update', 'web', '--delivery', 'body']), { delivery: 'body' });
  matchEach(t, await clients.list(), [{ clientId: 'web', delivery: 'body', origins }]);
});

t.test('what cannot be delivered by cookie is refused with one line', async (t) => {
  const words = ['client', 'create', '--id', 'y', '--type', 'public', '--delivery', 'cookie'];
  const { code, stdout, stderr } = await heirloom(words, { env });
  t.equal(code, 1);
  t.equal(stdout, '');
  t.match(stderr, /^Cookie delivery needs at least one --origin[^\n]+\n$/);

  const cookie = { clientId: 'y', delivery: 'cookie' } as const;
  const origins = ['https://app.example'];
  await t.rejects(clients.create({ ...cookie, clientType: 'confidential', origins }), {
    message: /^Cookie delivery is for public clients/,
  });
  const mixed = [...origins, 'http://app.example'];
  await t.rejects(clients.create({ ...cookie, clientType: 'public', origins: mixed }), {
    message: /^Cookie delivery needs origins with https/,
  });
  await clients.create({ clientId: 'web2', clientType: 'public' });
  await t.rejects(clients.update('web2', { delivery: 'cookie' }), /at least one/);
  await clients.update('web2', { delivery: 'cookie', origins });
  await t.rejects(clients.update('web2', { origins: [] }), /at least one/);
});

t.test('an origin is written as browsers write it, or refused', async (t) => {
  const bad = [
    ...['https://a/', 'https://a:443', 'HTTPS://a', 'https://A', 'https://a/b', 'https://u@a'],
    ...['null', '*', 'ftp://a', 'app://a', 'a.example', 'https://ä.example', ''],
  ];
  for (const origin of bad) {
    await t.rejects(
      clients.create({ clientId: 'y', clientType: 'public', origins: [origin] }),
      /not an origin/,
      origin,
    );
  }
  const origins = ['https://xn--4ca.example', 'http://a.example:8080', 'https://192.0.2.1'];
  const { client } = await clients.create({ clientId: 'y', clientType: 'public', origins });
  t.strictSame(client.origins, origins);
});
