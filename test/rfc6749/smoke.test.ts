import t from 'tap';
import { createCast, introspect, login, refresh, revoke } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t);
const cast = await createCast(server);
t.test('smoke', async (t) => {
  const a = await login(server, cast.c1);
  t.equal(a.status, 200);
  t.match((await introspect(server, cast.rs1, a.body.access_token)).body, { active: true });
  const b = await refresh(server, cast.c1, a.body.refresh_token);
  t.equal(b.status, 200);
  t.equal((await revoke(server, cast.c1, b.body.refresh_token)).status, 200);
  t.strictSame((await introspect(server, cast.rs1, b.body.access_token)).body, { active: false });
});
