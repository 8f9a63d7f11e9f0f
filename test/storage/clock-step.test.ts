/** The database's clock steps back, as that of a virtual machine does which is restored or set right. */
import t, { type Test } from 'tap';
import type { Answer } from '../support/client.ts';
import { shiftedFamily } from '../support/family-rows.ts';
import {
  type Cast,
  createCast,
  introspect,
  invalidGrantBody,
  login,
  refresh,
  revoke,
} from '../support/fixtures.ts';
import { startServer, type TestServer } from '../support/server.ts';

interface Scene {
  readonly server: TestServer;
  readonly cast: Cast;
  readonly logIn: () => Promise<Answer['body']>;
  readonly isActive: (token: string) => Promise<boolean>;
}

async function startScene(t: Test): Promise<Scene> {
  const server = await startServer(t);
  const cast = await createCast(server);
  return {
    server,
    cast,
    logIn: async () => {
      const { status, body } = await login(server, cast.c1);
      t.equal(status, 200);
      return body;
    },
    isActive: async (token) => (await introspect(server, cast.c1, token)).body.active,
  };
}

/** Five minutes: all that was written before lies so much later than it did. */
const stepBack = ({ inspect }: TestServer) =>
  inspect.query(`
    with passed as (select interval '-5 minutes' as time), families as (
      update token_family set ${shiftedFamily}, revoked_at = revoked_at - time from passed
    ), clients as (
      update client set sessions_valid_after = sessions_valid_after - time from passed
    )
    update server_state set
      sessions_valid_after = sessions_valid_after - time, pulse_at = pulse_at - time
    from passed`);

t.test(
  'F21 I3, I4: a clock of the database that steps back revives nothing that was revoked, and ends nothing',
  async (t) => {
    const { server, cast, logIn, isActive } = await startScene(t);
    const loggedOut = await logIn();
    await revoke(server, cast.c1, loggedOut.refresh_token);
    const replayed = await logIn();
    const successor = (await refresh(server, cast.c1, replayed.refresh_token)).body;
    await refresh(server, cast.c1, successor.refresh_token);
    t.equal((await refresh(server, cast.c1, replayed.refresh_token)).status, 400, 'a replay');
    const live = await logIn();
    const ended = (await refresh(server, cast.c1, live.refresh_token)).body;
    await revoke(server, cast.c1, ended.access_token);

    await stepBack(server);
    for (const { access_token, refresh_token } of [loggedOut, replayed, successor]) {
      t.notOk(await isActive(access_token), 'a session that is over stays so');
      t.notOk(await isActive(refresh_token));
      t.strictSame((await refresh(server, cast.c1, refresh_token)).body, invalidGrantBody);
    }
    t.notOk(await isActive(ended.access_token), 'and so does a token that was revoked');

    t.ok(await isActive(live.access_token), 'whoever was logged in still is');
    const retry = (await refresh(server, cast.c1, live.refresh_token)).body;
    t.equal(retry.refresh_token, ended.refresh_token, 'a retry gets its answer');
    const next = await refresh(server, cast.c1, ended.refresh_token);
    t.equal(next.status, 200, 'and the session goes on');
    const { iat, exp } = (await introspect(server, cast.c1, next.body.access_token)).body;
    t.ok(Math.abs(exp - iat - next.body.expires_in) <= 1);
    const { rows } = await server.inspect.query(
      `select count(*)::int as events from security_event where kind = 'refresh_token_replay'`,
    );
    t.strictSame(rows, [{ events: 1 }], 'nobody is accused but who replayed');
  },
);

const cutOffs: Readonly<Record<string, (server: TestServer) => Promise<unknown>>> = {
  "everybody's": ({ dependencies }) => dependencies.sessions.revokeEverything(),
  "a client's": ({ dependencies }) => dependencies.clients.endSessions('C1'),
};

for (const [whose, cutOff] of Object.entries(cutOffs)) {
  t.test(`after ${whose} cut-off people log in to sessions that live`, async (t) => {
    const { server, logIn, isActive } = await startScene(t);
    const before = await logIn();
    await cutOff(server);
    await stepBack(server);
    const after = await logIn();
    t.ok(await isActive(after.access_token), 'whatever the clock says');
    t.ok(await isActive(after.refresh_token));
    t.notOk(await isActive(before.access_token));

    await cutOff(server);
    t.notOk(await isActive(after.access_token), 'the next cut-off ends them, too');
    t.notOk(await isActive(before.access_token), 'and takes nothing back');
    const again = await logIn();
    t.ok(await isActive(again.access_token));
    t.ok(await isActive(again.refresh_token));
  });

  t.test(`${whose} cut-off ends sessions that will have begun, and nobody else's`, async (t) => {
    const { server, cast, logIn, isActive } = await startScene(t);
    const before = await logIn();
    const other = (await login(server, cast.c2)).body;
    await stepBack(server);
    await cutOff(server);
    t.notOk(await isActive(before.access_token));
    t.notOk(await isActive(before.refresh_token));
    const { body } = await introspect(server, cast.c2, other.access_token);
    t.equal(body.active, whose === "a client's");
  });
}

t.test('a cut-off that is set to infinity ends every session, and none begins there', async (t) => {
  const { server, logIn, isActive } = await startScene(t);
  const before = await logIn();
  await server.inspect.query(`update server_state set sessions_valid_after = 'infinity'`);
  const during = await logIn();
  t.notOk(await isActive(before.access_token));
  t.notOk(await isActive(during.access_token));

  await server.inspect.query('update server_state set sessions_valid_after = null');
  await server.dependencies.sessions.revokeEverything();
  t.notOk(await isActive(during.access_token), 'the next cut-off ends what began meanwhile');
  t.ok(await isActive((await logIn()).access_token), 'and people can log in again');
});

t.test('the newest access tokens of a session are kept, whatever their date', async (t) => {
  const { server, cast, logIn, isActive } = await startScene(t);
  let { refresh_token } = await logIn();
  const next = async () => {
    const { body } = await refresh(server, cast.c1, refresh_token);
    refresh_token = body.refresh_token;
    return body.access_token as string;
  };
  const oldest = await next();
  for (let n = 0; n < 14; n++) await next();
  await stepBack(server);
  const [first, second] = [await next(), await next()];
  t.ok(await isActive(first), 'one that was issued a moment ago');
  t.ok(await isActive(second));
  t.notOk(await isActive(oldest));
});
