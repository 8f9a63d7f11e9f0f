/** A client waits for so long, and no longer, whatever keeps its request. */
import { setImmediate as turn } from 'node:timers/promises';
import t from 'tap';
import { TemporarilyUnavailable } from '../../src/oauth/errors.ts';
import { post, send } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import { hasFailed } from '../support/errors.ts';
import { createCast, introspect, login, refresh, revoke } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

/** Something that is not done before the test says so. */
function holding() {
  let release = () => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
  return { released, release };
}

t.test('whoever has waited too long is told 503, and work that is late harms nobody', async (t) => {
  const database = await createTestDatabase(t);
  const patient = await startServer(t, { database });
  const server = await startServer(t, { database, answerDeadlineSeconds: 0.5 });
  const { c1 } = await createCast(patient);
  const { body } = await login(patient, c1);

  const { released, release } = holding();
  const late: Promise<unknown>[] = [];
  const held =
    <Request, Result>(work: (request: Request) => Promise<Result>) =>
    (request: Request): Promise<Result> => {
      const result = released.then(() => work(request));
      late.push(result);
      return result;
    };
  const { authorizationServer } = server.dependencies;
  const { token, revoke: end, introspect: ask } = authorizationServer;
  Object.assign(authorizationServer, {
    token: held(token),
    revoke: held(end),
    introspect: held(ask),
  });
  const answers = await Promise.all([
    refresh(server, c1, body.refresh_token),
    revoke(server, c1, body.access_token),
    introspect(server, c1, body.access_token),
  ]);
  for (const answer of answers) {
    hasFailed(t, answer, 503, 'temporarily_unavailable', 'no verdict');
    t.match(answer.headers.get('retry-after'), /^[1-9][0-9]*$/);
  }
  release();
  await Promise.all(late);
  const retry = await refresh(patient, c1, body.refresh_token);
  t.equal(retry.status, 200, 'a retry gets what was done late');
  t.equal((await refresh(patient, c1, retry.body.refresh_token)).status, 200);
  t.match(await introspect(patient, c1, body.access_token), { body: { active: false } });
});

t.test('a replay, a fault and trouble that come to light late are in the log', async (t) => {
  const database = await createTestDatabase(t);
  const patient = await startServer(t, { database });
  const server = await startServer(t, { database, answerDeadlineSeconds: 0.5 });
  const { c1 } = await createCast(patient);
  const spent = (await login(patient, c1)).body.refresh_token;
  const { body } = await refresh(patient, c1, spent);
  await refresh(patient, c1, body.refresh_token);

  const { released, release } = holding();
  const { authorizationServer } = server.dependencies;
  const { token } = authorizationServer;
  const late: Promise<unknown>[] = [];
  const fail = (error: Error) => () => {
    const result = released.then(() => Promise.reject(error));
    late.push(result.catch(() => {}));
    return result;
  };
  const cause = new Error('connection lost');
  Object.assign(authorizationServer, {
    token(request: Parameters<typeof token>[0]) {
      const result = released.then(() => token(request));
      late.push(result.catch(() => {}));
      return result;
    },
    revoke: fail(new TypeError('a fault')),
    introspect: fail(new TemporarilyUnavailable('database does not answer', { cause })),
  });
  const answers = await Promise.all([
    refresh(server, c1, spent),
    revoke(server, c1, spent),
    introspect(server, c1, spent),
  ]);
  for (const { status } of answers) t.equal(status, 503);
  release();
  await Promise.all(late);
  await turn();
  const lines = server.logs.map((line) => JSON.parse(line));
  const familyId = /^[0-9a-f-]{36}$/;
  const replay = lines.find(({ event }) => event === 'refresh_token_replay');
  t.match(replay, { level: 40, familyId, clientId: 'C1', address: '127.0.0.1', path: '/token' });
  const fault = lines.find(({ event }) => event === 'failed');
  t.match(fault, { level: 50, error: { name: 'TypeError' } });
  const trouble = lines.find(({ detail }) => detail === 'database does not answer');
  t.match(trouble, { event: 'unavailable', cause: ['connection lost'] });
});

t.test('apps in browsers are answered in time, and read that they should come back', async (t) => {
  const server = await startServer(t, { answerDeadlineSeconds: 0.5 });
  const { database, clients, origins } = server.dependencies;
  const origin = 'https://app.example';
  await clients.create({ clientId: 'app', clientType: 'public', origins: [origin] });
  const allowed = 'access-control-allow-origin';
  await origins.find(origin, 40);

  const { released, release } = holding();
  // Without a deadline the answers come then, and are others.
  const giveUp = setTimeout(release, 15_000);
  t.teardown(() => {
    clearTimeout(giveUp);
    release();
  });
  const { run } = database;
  Object.assign(database, {
    run: (...given: Parameters<typeof run>) => released.then(() => run(...given)),
    checkConnection: () => released,
  });
  const unknown = { client_id: 'app', grant_type: 'refresh_token', refresh_token: 'x' };
  const answer = await post(`${server.url}/token`, unknown, { origin });
  hasFailed(t, answer, 503, 'temporarily_unavailable', 'the client is not known either');
  t.equal(answer.headers.get(allowed), origin, 'as when the database answered');
  const preflight = await send(`${server.url}/token`, { method: 'OPTIONS', headers: { origin } });
  t.equal(preflight.headers.get(allowed), origin);
  t.equal((await send(`${server.url}/readyz`)).status, 503, 'and so is a balancer');
});
