/** Between the server and PostgreSQL, and in PostgreSQL's own log at its most talkative, goes no secret. */
import t from 'tap';
import { findSecrets } from '../support/canaries.ts';
import { createLonelyDatabase } from '../support/database.ts';
import {
  ALICE_PASSWORD,
  createCast,
  introspect,
  login,
  refresh,
  revoke,
} from '../support/fixtures.ts';
import { startProxy } from '../support/proxy.ts';
import { startServer } from '../support/server.ts';

const database = await createLonelyDatabase(t, {
  log_statement: 'all',
  log_min_duration_statement: '0',
  log_min_error_statement: 'error',
  log_error_verbosity: 'verbose',
});

t.test(
  'LOG-01 ASVS 16.2.5: neither the wire nor the log of the database holds a secret or a salt',
  async (t) => {
    const captured: Buffer[] = [];
    const proxy = await startProxy(t, database.url, (chunk) => captured.push(chunk));
    const server = await startServer(t, { database: { ...database, url: proxy.url } });
    const cast = await createCast(server);
    await server.dependencies.resourceOwners.setPassword('alice', `${ALICE_PASSWORD}!`);
    await server.dependencies.resourceOwners.setPassword('alice', ALICE_PASSWORD);
    const { clientSecret } = await server.dependencies.clients.rotateSecret('C1', 3600);

    const first = (await login(server, cast.c1)).body;
    const second = (await refresh(server, cast.c1, first.refresh_token)).body;
    const retried = (await refresh(server, cast.c1, first.refresh_token, { scope: 'read' })).body;
    await introspect(server, cast.rs1, second.access_token);
    await introspect(server, cast.c1, second.refresh_token);
    await login(server, cast.c1, { password: 'a wrong password of alice' });
    await login(server, { id: 'C1', secret: 'hcs_a-wrong-secret-of-this-client' });
    await revoke(server, cast.c1, retried.access_token);
    const other = (await login(server, cast.p1)).body;
    const next = (await refresh(server, cast.p1, other.refresh_token)).body;
    await refresh(server, cast.p1, next.refresh_token);
    t.equal((await refresh(server, cast.p1, other.refresh_token)).status, 400, 'a replay');
    await revoke(server, cast.c1, second.refresh_token);

    const secrets = [
      ALICE_PASSWORD,
      'a wrong password of alice',
      'hcs_a-wrong-secret-of-this-client',
      cast.c1.secret,
      cast.rs1.secret,
      clientSecret,
      ...[first, second, retried, other, next].flatMap((tokens) => [
        tokens.access_token,
        tokens.refresh_token,
      ]),
    ];
    const wire = Buffer.concat(captured);
    t.ok(wire.length > 10_000);
    t.strictSame(findSecrets(secrets, wire.toString('latin1')), [], 'on the wire');
    const log = database.readLog();
    t.match(log, 'heirloom-rotate');
    t.strictSame(findSecrets(secrets, log), [], 'in the log');

    const { rows } = await database.inspect.query<{ salt: Buffer; hash: string }>(
      `select successor_salt as salt, (select password_hash from resource_owner where username = 'alice') as hash
     from token_family where successor_salt is not null`,
    );
    t.ok(rows.length >= 2);
    for (const { salt, hash } of rows) {
      for (const text of [log, server.logs.join('')]) {
        t.notOk(text.includes(salt.toString('hex')), 'no successor salt');
        t.notOk(text.includes(hash.split('$')[4] as string), 'no salt of a password');
      }
    }
  },
);
