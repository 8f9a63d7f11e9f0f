/** A client waits for so long, and no longer, whatever keeps its request. */
import t from 'tap';
import { createTestDatabase } from '../support/database.ts';
import { hasFailed } from '../support/errors.ts';
import { createCast, introspect, login, refresh, revoke } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

t.test('whoever has waited too long is told 503, and work that is late harms nobody', async (t) => {
  const database = await createTestDatabase(t);
  const patient = await startServer(t, { database });
  const server = await startServer(t, { database, answerDeadlineSeconds: 0.5 });
  const { c1 } = await createCast(patient);
  const { body } = await login(patient, c1);

  let release = () => {};
  const released = new Promise<void>((resolve) => {
    release = resolve;
  });
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
