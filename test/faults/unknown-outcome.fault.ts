/** The database connection is lost between COMMIT and its acknowledgement. */
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { Answer } from '../support/client.ts';
import type { TestDatabase } from '../support/database.ts';
import { invalidGrantBody } from '../support/fixtures.ts';
import { type Cut, type DatabaseProxy, startDatabaseProxy } from './database-proxy.ts';
import {
  createLoadClient,
  digestOf,
  familyOf,
  introspect,
  type LoadClient,
  login,
  meaningOf,
  type Reply,
  refresh,
  revoke,
} from './load.ts';
import { ask, holdRow, type ServerProcess, startPostgres, startServerProcess } from './support.ts';
import { printFigures, verifyLogs } from './verify.ts';

t.setTimeout(120_000);

const ROUNDS = 5;

const postgres = await startPostgres(t);

interface Scene {
  readonly database: TestDatabase;
  readonly proxy: DatabaseProxy;
  readonly server: ServerProcess;
  readonly client: LoadClient;
  readonly strictClient: LoadClient;
}

async function setUp(t: Test): Promise<Scene> {
  const database = await postgres.createDatabase();
  const client = await createLoadClient(database, ['alice']);
  const strictClient = await createLoadClient(database, [], {
    clientId: 'strict',
    retryWindowSeconds: 0,
  });
  const proxy = await startDatabaseProxy(t, database.url);
  const server = await startServerProcess(t, proxy.url);
  return { database, proxy, server, client, strictClient };
}

interface FamilyRow {
  generation: number;
  current_digest: Buffer;
  access_tokens: number;
}

const familyRow = async (database: TestDatabase, token: string): Promise<FamilyRow> => {
  const rows = await ask<FamilyRow>(
    database,
    `select generation, current_digest, cardinality(access_tokens) as access_tokens
     from token_family where id = $1`,
    [familyOf(token)],
  );
  return rows[0] as FamilyRow;
};

async function loggedIn({ server, client }: Scene, as = client): Promise<Answer['body']> {
  const answer = (await login(() => server.url, as, 'alice')) as Answer;
  if (answer.status !== 200) throw new Error(`login is refused: ${answer.text}`);
  return answer.body;
}

const assertUnavailable = (t: Test, reply: Reply, message = 'the outcome is unknown: 503') =>
  t.equal(meaningOf(reply), 'unavailable', message);

/** Lets a server that would write again do so. */
const settle = () => delay(300);

t.test('F11 I4, I5, I11: a rotation not acknowledged is 503, and a retry gets it', async (t) => {
  const scene = await setUp(t);
  const { database, proxy, server, client } = scene;
  const target = () => server.url;
  for (let round = 0; round < ROUNDS; round++) {
    const { refresh_token } = await loggedIn(scene);
    const cut = proxy.cut('after', 'heirloom-rotate');
    const [reply] = await Promise.all([refresh(target, client, refresh_token), cut]);
    assertUnavailable(t, reply);
    await settle();
    const committed = await familyRow(database, refresh_token);
    t.match(committed, { generation: 1, access_tokens: 2 }, 'it was committed, and once');

    const retry = (await refresh(target, client, refresh_token)) as Answer;
    t.equal(retry.status, 200);
    t.ok(
      digestOf(retry.body.refresh_token).equals(committed.current_digest),
      'the retry returns the successor that was committed',
    );
    const again = (await refresh(target, client, refresh_token)) as Answer;
    t.equal(again.body.refresh_token, retry.body.refresh_token, 'and so does another one');
    t.equal(again.body.access_token, retry.body.access_token);
    t.strictSame(await familyRow(database, refresh_token), committed, 'nothing else is written');
    const next = (await refresh(target, client, retry.body.refresh_token)) as Answer;
    t.equal(next.status, 200, 'and the family goes on');
  }
  t.notOk(server.hasEnded(), 'the process goes on');
  verifyLogs(t, server.output());
  printFigures(t, { 'acknowledgements swallowed': ROUNDS, 'rotations committed': ROUNDS });
});

t.test('so is one that waited for its row and whose COMMIT is not acknowledged', async (t) => {
  const scene = await setUp(t);
  const { database, proxy, server, client } = scene;
  const target = () => server.url;
  const { refresh_token } = await loggedIn(scene);
  const release = await holdRow(database, familyOf(refresh_token));
  const cut = proxy.cut('after', 'commit');
  const waiting = refresh(target, client, refresh_token);
  await delay(300);
  await release();
  assertUnavailable(t, await waiting);
  await cut;
  await settle();
  const committed = await familyRow(database, refresh_token);
  t.match(committed, { generation: 1, access_tokens: 2 }, 'it was committed, and once');
  const retry = (await refresh(target, client, refresh_token)) as Answer;
  t.equal(retry.status, 200);
  t.ok(digestOf(retry.body.refresh_token).equals(committed.current_digest));
  t.notOk(server.hasEnded(), 'the process goes on');
});

t.test('a rotation that never reached PostgreSQL is 503, and the retry rotates', async (t) => {
  const scene = await setUp(t);
  const { database, proxy, server, client } = scene;
  const target = () => server.url;
  for (let round = 0; round < ROUNDS; round++) {
    const { refresh_token } = await loggedIn(scene);
    const cut = proxy.cut('before', 'heirloom-rotate');
    const [reply] = await Promise.all([refresh(target, client, refresh_token), cut]);
    assertUnavailable(t, reply);
    await settle();
    t.match(
      await familyRow(database, refresh_token),
      { generation: 0 },
      'nothing is written later',
    );
    t.equal((await refresh(target, client, refresh_token)).status, 200);
    t.match(await familyRow(database, refresh_token), { generation: 1, access_tokens: 2 });
  }
});

t.test('with window 0 the retry of a lost acknowledgement is a replay', async (t) => {
  const scene = await setUp(t);
  const { proxy, server, strictClient } = scene;
  const target = () => server.url;
  const { refresh_token, access_token } = await loggedIn(scene, strictClient);
  const cut = proxy.cut('after', 'heirloom-rotate');
  const [reply] = await Promise.all([refresh(target, strictClient, refresh_token), cut]);
  assertUnavailable(t, reply);
  const retry = (await refresh(target, strictClient, refresh_token)) as Answer;
  t.equal(retry.status, 400);
  t.strictSame(retry.body, invalidGrantBody);
  t.match(await introspect(target, strictClient, access_token), { body: { active: false } });
});

t.test('no endpoint turns a lost connection into a verdict', async (t) => {
  const scene = await setUp(t);
  const { proxy, server, client } = scene;
  const target = () => server.url;
  for (const kind of ['before', 'after'] as const satisfies Cut[]) {
    const { access_token, refresh_token } = await loggedIn(scene);
    const cutting = async (statement: string, send: () => Promise<Reply>) => {
      const [reply] = await Promise.all([send(), proxy.cut(kind, statement)]);
      assertUnavailable(t, reply, `${statement}, cut ${kind} PostgreSQL has it: 503`);
    };
    await cutting('heirloom-look-up', () => introspect(target, client, access_token));
    await cutting('heirloom-look-up', () => refresh(target, client, refresh_token));
    await cutting('heirloom-look-up', () => revoke(target, client, refresh_token));
    await cutting('heirloom-find-resource-owner', () => login(target, client, 'alice'));
    await cutting('heirloom-start-family', () => login(target, client, 'alice'));
    t.match(await introspect(target, client, access_token), { body: { active: true } });

    await cutting('heirloom-revoke-access-token', () => revoke(target, client, access_token));
    t.equal((await revoke(target, client, access_token)).status, 200);
    t.match(await introspect(target, client, access_token), { body: { active: false } });
    t.match(await introspect(target, client, refresh_token), { body: { active: true } });
    await cutting('heirloom-revoke-family', () => revoke(target, client, refresh_token));
    t.equal((await revoke(target, client, refresh_token)).status, 200);
    t.match(await introspect(target, client, refresh_token), { body: { active: false } });
  }
  t.notOk(server.hasEnded(), 'the process goes on');
  verifyLogs(t, server.output());
  printFigures(t, { 'statements cut before and after PostgreSQL had them': 7 });
});
