/** Several processes on one DATA_DIR: two servers at once, and a command line beside a running server. */
import t from 'tap';
import { demo } from '../../src/demo.ts';
import { post } from '../support/client.ts';
import { heirloom, serve, temporaryDirectory } from '../support/process.ts';

const login = (url: string) =>
  post(`${url}/token`, {
    grant_type: 'password',
    client_id: demo.clientId,
    username: demo.username,
    password: demo.password,
  });

t.test(
  'two servers start at once on an empty DATA_DIR, and a command line works beside them',
  async (t) => {
    const env = { DATA_DIR: temporaryDirectory(t) };
    const [one, other] = await Promise.all([serve(t, { env }), serve(t, { env })]);
    const tokens = await login(one.url);
    t.equal(tokens.status, 200);
    const ask = (url: string) =>
      post(`${url}/introspect`, {
        client_id: demo.apiClientId,
        client_secret: demo.apiClientSecret,
        token: tokens.body.access_token,
      });
    t.match((await ask(other.url)).body, { active: true }, 'both work on one database');

    const sessions = await heirloom(['session', 'list', demo.username, '--json'], { env });
    t.equal(sessions.code, 0, sessions.stderr);
    const [session] = JSON.parse(sessions.stdout);
    t.match(session, { client_id: demo.clientId, username: demo.username });
    const revoked = await heirloom(['session', 'revoke', session.id], { env });
    t.equal(revoked.code, 0, revoked.stderr);
    t.strictSame((await ask(one.url)).body, { active: false });

    t.equal(await one.stop(), 0);
    t.equal(
      (await login(other.url)).status,
      200,
      'whoever leaves first leaves the database running',
    );
    t.equal(await other.stop(), 0);
  },
);

t.test(
  'a second start keeps the data, and a command line works with no server running',
  async (t) => {
    const env = { DATA_DIR: temporaryDirectory(t) };
    const created = await heirloom(['user', 'create', 'bob', '--password-stdin', '--json'], {
      env,
      input: 'a phrase that only bob knows\n',
    });
    t.equal(created.code, 0, created.stderr);
    const first = await serve(t, { env });
    const { body } = await login(first.url);
    t.equal(await first.stop(), 0);
    const second = await serve(t, { env });
    const refreshed = await post(`${second.url}/token`, {
      grant_type: 'refresh_token',
      client_id: demo.clientId,
      refresh_token: body.refresh_token,
    });
    t.equal(refreshed.status, 200, 'the session outlives the server');
    const people = await heirloom(['user', 'list', '--json'], { env });
    t.strictSame(
      JSON.parse(people.stdout).map(({ username }: { username: string }) => username),
      [demo.username, 'bob'],
    );
  },
);

t.test('a parent that dies takes the server along under npm', async (t) => {
  const env = { DATA_DIR: temporaryDirectory(t), npm_lifecycle_event: 'start' };
  // A shell that stays between, as npm does, and can be killed without its child.
  const server = await serve(t, { env }, [
    'sh',
    '-c',
    `"${process.execPath}" src/heirloom.js serve & wait`,
  ]);
  await server.stop();
  const isGone = async () => {
    for (let attempts = 0; attempts < 100; attempts++) {
      const answer = await fetch(`${server.url}/livez`).catch(() => undefined);
      if (answer === undefined) return true;
      await new Promise((resolve) => setTimeout(resolve, 200));
    }
    return false;
  };
  t.ok(await isGone());
});
