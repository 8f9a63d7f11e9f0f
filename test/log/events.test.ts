/** What the log says: one JSON line per outcome, with who, what and from where, and never a secret. */
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import t from 'tap';
import { startHousekeeping } from '../../src/housekeeping.ts';
import { parseOpaqueToken } from '../../src/oauth/opaque-token.ts';
import { basic, post } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import { createCast, login, refresh, revoke } from '../support/fixtures.ts';
import { matchEach } from '../support/match.ts';
import { startProxy } from '../support/proxy.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t);
const cast = await createCast(server);
const { c1, c2 } = cast;

type Line = Record<string, unknown>;

/** The lines that an action writes. */
async function linesOf(action: () => Promise<unknown>): Promise<Line[]> {
  const before = server.logs.length;
  await action();
  return server.logs.slice(before).map((line) => JSON.parse(line));
}

const uuid = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/;
const common = { time: /^\d{4}-\d\d-\d\dT[\d:.]+Z$/, reqId: uuid, address: '127.0.0.1' };

t.test('LOG-03 ASVS 14.2.1: a query string is never written', async (t) => {
  const lines = await linesOf(async () => {
    await post(`${server.url}/token?access_token=canary`, {});
    await post(`${server.url}/canary?canary`, {});
    await fetch(`${server.url}/livez?canary`);
  });
  t.ok(lines.length > 0);
  t.notMatch(JSON.stringify(lines), 'canary');
});

t.test(
  'LOG-04 ASVS 16.2.1: every outcome is one line with time, event, client, person and address',
  async (t) => {
    const { body } = await login(server, c1);
    const known = { clientId: 'C1', subject: cast.aliceSubject };
    const family = { familyId: uuid };
    const cases: [string, () => Promise<unknown>, Line][] = [
      [
        'login',
        () => login(server, c1),
        { event: 'login', outcome: 'success', ...known, ...family },
      ],
      [
        'failed login',
        () => login(server, c1, { password: 'wrong' }),
        { event: 'login_failed', outcome: 'refused', code: 'invalid_grant', ...known },
      ],
      [
        'a request of another kind',
        () => fetch(`${server.url}/token`, { method: 'POST', body: '{}' }),
        { event: 'refused', outcome: 'refused', detail: /MEDIA_TYPE/ },
      ],
      [
        'unknown person',
        () => login(server, c1, { username: 'Nobody' }),
        { event: 'login_failed', clientId: 'C1', usernameDigest: /^[0-9a-f]{16}$/ },
      ],
      [
        'refresh',
        () => refresh(server, c1, body.refresh_token),
        { event: 'refresh', outcome: 'success', ...known, ...family },
      ],
      [
        'retry',
        () => refresh(server, c1, body.refresh_token),
        { event: 'refresh_retry', outcome: 'success', ...known, ...family },
      ],
      [
        'another client’s token',
        () => refresh(server, c2, body.refresh_token),
        { event: 'refresh_token_of_another_client', level: 40, clientId: 'C2', ...family },
      ],
      [
        'garbage',
        () => refresh(server, c1, 'garbage'),
        { event: 'refresh_failed', outcome: 'refused', clientId: 'C1' },
      ],
      [
        'revocation',
        () => revoke(server, c1, body.refresh_token),
        {
          event: 'revoke',
          outcome: 'success',
          clientId: 'C1',
          effect: 'family-revoked',
          ...family,
        },
      ],
      [
        'failed client authentication',
        () => login(server, { id: 'C1', secret: 'wrong' }),
        { event: 'client_authentication_failed', code: 'invalid_client', clientId: 'C1' },
      ],
      [
        'a secret in the place of the client id',
        () => login(server, { id: c1.secret, secret: 'C1' }),
        { event: 'client_authentication_failed', code: 'invalid_client', clientId: undefined },
      ],
    ];
    for (const [name, action, expected] of cases) {
      const lines = await linesOf(action);
      t.equal(lines.length, 1, `one line for ${name}`);
      t.match(lines[0], { ...common, ...expected }, name);
    }
    t.notMatch(server.logs.join(''), /nobody/i, 'a name that is nobody’s may be a password');
    t.notMatch(server.logs.join(''), c1.secret, 'nor is the name of a client that is none written');
  },
);

t.test(
  'LOG-05 RFC 9700 §4.14.2: a replay is a warning with both addresses, a row and a notification',
  async (t) => {
    const listener = new pg.Client({ connectionString: server.databaseUrl });
    await listener.connect();
    t.teardown(() => listener.end());
    await listener.query('listen heirloom_security_event');
    const notified = new Promise<Line>((resolve) => {
      listener.once('notification', ({ payload = '' }) => resolve(JSON.parse(payload)));
    });

    const first = (await login(server, c1)).body;
    const second = (await refresh(server, c1, first.refresh_token)).body;
    await refresh(server, c1, second.refresh_token);
    const lines = await linesOf(() => refresh(server, c1, first.refresh_token));
    matchEach(t, lines, [
      {
        ...common,
        level: 40,
        event: 'refresh_token_replay',
        clientId: 'C1',
        subject: cast.aliceSubject,
        familyId: uuid,
        familyAddress: '127.0.0.1',
      },
    ]);
    const row = {
      kind: 'refresh_token_replay',
      client_id: 'C1',
      subject: cast.aliceSubject,
      family_id: lines[0]?.['familyId'],
      address: '127.0.0.1',
      family_address: '127.0.0.1',
    };
    t.match(await notified, row);
    const { rows } = await server.inspect.query(
      'select * from security_event order by id desc limit 1',
    );
    t.match(rows, [row]);
    // Presented once more the family is dead already: no second event.
    const again = await linesOf(() => refresh(server, c1, first.refresh_token));
    matchEach(t, again, [{ event: 'refresh_failed' }]);
  },
);

t.test(
  'a token at other clients is an event for each client and family, once a minute',
  async (t) => {
    const familyIds: string[] = [];
    for (const clients of [[c2, cast.p1], [c2]]) {
      const { refresh_token } = (await login(server, c1)).body;
      familyIds.push(parseOpaqueToken(refresh_token)?.familyId as string);
      for (const client of [...clients, ...clients]) await refresh(server, client, refresh_token);
    }
    const recorded = async () => {
      const { rows } = await server.inspect.query(
        'select family_id, client_id from security_event where family_id = any($1)',
        [familyIds],
      );
      return rows.map(({ family_id, client_id }) => `${familyIds.indexOf(family_id)} ${client_id}`);
    };
    while ((await recorded()).length < 3) await delay(20);
    await delay(100);
    t.strictSame((await recorded()).sort(), ['0 C2', '0 P1', '1 C2']);
  },
);

t.test('LOG-06 ASVS 16.4.1: nothing that a request says breaks out of its line', async (t) => {
  const nasty = 'x"}\u001b[31m{"level":60}';
  const lines = await linesOf(async () => {
    await post(
      `${server.url}/token`,
      { grant_type: nasty, username: nasty, password: nasty },
      { ...basic(nasty, 'x'), 'user-agent': 'x"}{\\', 'x-forwarded-for': '1.2.3.4"}' },
    );
    await login(server, c1, { username: nasty });
    await login(server, c1, { username: `a\nb` });
  });
  t.ok(lines.length >= 3, 'every line parses');
  t.ok(lines.every(({ level }) => level === 30));
  t.notMatch(server.logs.join(''), '\u001b');
});

t.test('LOG-07 ASVS 16.4.1: the request id is ours', async (t) => {
  const lines = await linesOf(() =>
    post(`${server.url}/token`, {}, { 'request-id': 'forged', 'x-request-id': 'forged' }),
  );
  matchEach(t, lines, [{ reqId: uuid }]);
});

t.test('housekeeping that meets a lost database says how it was lost', async (t) => {
  const database = await createTestDatabase(t);
  const proxy = await startProxy(t, database.url);
  const { app, dependencies, logs } = await startServer(t, {
    database: { ...database, url: proxy.url },
    pulseIntervalSeconds: 0.05,
  });
  proxy.cut();
  const failed = 'housekeeping_failed';
  const stop = startHousekeeping(dependencies, app.log);
  const told = () => logs.map((line) => JSON.parse(line)).find(({ event }) => event === failed);
  while (told() === undefined) await delay(20);
  await stop();
  t.match(told(), { detail: /^database does not answer \(.+\)$/ });
});
