/** WORKERS: several processes on one port, one database and one ready line. */
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { demo } from '../../src/demo.ts';
import { post } from '../support/client.ts';
import { sendHalfARequest, serve, temporaryDirectory, until } from '../support/process.ts';

t.test('two workers share the port, and SIGTERM ends them in turn', async (t) => {
  const env = { DATA_DIR: temporaryDirectory(t), WORKERS: '2' };
  const server = await serve(t, { env });
  t.equal(server.output.stdout.match(/listening/g)?.length, 1, 'one ready line');

  const login = await post(`${server.url}/token`, {
    grant_type: 'password',
    client_id: demo.clientId,
    username: demo.username,
    password: demo.password,
  });
  t.equal(login.status, 200);
  const { refresh_token } = login.body;
  const refreshed = await Promise.all(
    Array.from({ length: 20 }, () =>
      post(
        `${server.url}/token`,
        { grant_type: 'refresh_token', client_id: demo.clientId, refresh_token },
        // A connection each, so that both workers get some.
        { connection: 'close' },
      ),
    ),
  );
  const successors = new Set(refreshed.map(({ body }) => body.refresh_token));
  t.strictSame(new Set(refreshed.map(({ status }) => status)), new Set([200]));
  t.equal(successors.size, 1, 'one successor, whoever answered');

  // Refused for its scope, so that only requests are counted: 29 are left of a minute's 30.
  const counted = await Promise.all(
    Array.from({ length: 40 }, () =>
      post(
        `${server.url}/token`,
        {
          grant_type: 'password',
          client_id: demo.clientId,
          username: demo.username,
          password: demo.password,
          scope: 'unheard-of',
        },
        { connection: 'close' },
      ),
    ),
  );
  t.equal(counted.filter(({ status }) => status === 400).length, 29, 'limits are those of both');

  const workers = server.output.stdout.match(/bound to/g)?.length;
  t.equal(workers, 2, 'both have started');

  // Connections go to the workers in turn. Whoever is to end first has to wait for its request.
  const held = [sendHalfARequest(t, server.url), sendHalfARequest(t, server.url)];
  await delay(300);
  const code = server.stop();
  const status = () =>
    post(
      `${server.url}/token`,
      { grant_type: 'x', client_id: demo.clientId },
      { connection: 'close' },
    ).then(
      (answer) => answer.status,
      () => undefined,
    );
  await until(async () => (await status()) === 503);
  await delay(300);
  const statuses = await Promise.all(Array.from({ length: 8 }, status));
  t.ok(statuses.includes(400), 'the other one answers');
  for (const socket of held) socket.destroy();
  t.equal(await code, 0);
});
