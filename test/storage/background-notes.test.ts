/** What is noted beside a request: whatever becomes of it, the request is answered and the server goes on. */
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { createCast, introspect, login, refresh } from '../support/fixtures.ts';
import { until } from '../support/process.ts';
import { startServer } from '../support/server.ts';

t.test('notes that cannot be written fail nobody', async (t) => {
  const server = await startServer(t);
  const { c1, c2, p1, rs1 } = await createCast(server);
  const { body } = await login(server, p1);
  // A sequence counts what is undone, too.
  await server.inspect.query(
    `create sequence attempt;
     create function fail() returns trigger language plpgsql
       as $$ begin perform nextval('attempt'); raise 'made up'; end $$;
     create trigger fail before update on client_secret for each row execute function fail();
     create trigger fail before insert on security_event for each row execute function fail()`,
  );
  const attempts = async () => {
    const { rows } = await server.inspect.query<{ n: number }>(
      'select case when is_called then last_value else 0 end::int as n from attempt',
    );
    return rows[0]?.n;
  };
  t.equal((await introspect(server, rs1, body.access_token)).status, 200);
  await until(async () => (await attempts()) === 1);
  t.equal((await refresh(server, c2, body.refresh_token)).status, 400);
  // That it used its secret, and that the token is another client's.
  await until(async () => (await attempts()) === 3);
  // The failure of a note that nobody hears would end the process.
  await delay(100);
  t.equal((await refresh(server, p1, body.refresh_token)).status, 200);
  t.equal((await introspect(server, c1, body.access_token)).status, 200);
});

t.test('of every family that another client tries there is one event', async (t) => {
  const server = await startServer(t);
  const { c2, p1 } = await createCast(server);
  const families = [await login(server, p1), await login(server, p1)];
  for (const { body } of [...families, ...families]) {
    t.equal((await refresh(server, c2, body.refresh_token)).status, 400);
  }
  const recorded = async () => {
    const { rows } = await server.inspect.query<{ family_id: string }>(
      'select family_id from security_event',
    );
    return rows.map(({ family_id }) => family_id);
  };
  await until(async () => new Set(await recorded()).size === families.length);
  t.equal((await recorded()).length, families.length);
});
