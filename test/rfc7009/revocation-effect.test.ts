/**
 * When a revocation counts, RFC 7009 §2.1:
 *
 * > … the authorization server invalidates the token. The invalidation takes place immediately, and the
 * > token cannot be used again after the revocation.
 *
 * §2.2.1: "If the server responds with HTTP status code 503, the client must assume the token still exists."
 */
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { loadConfig } from '../../src/config.ts';
import { parseOpaqueToken } from '../../src/oauth/opaque-token.ts';
import { createTestDatabase } from '../support/database.ts';
import { hasFailed } from '../support/errors.ts';
import { createCast, introspect, login, refresh, revoke } from '../support/fixtures.ts';
import { administer } from '../support/postgres.ts';
import { startServer, type TestServer } from '../support/server.ts';

const database = await createTestDatabase(t);
const one = await startServer(t, { database, isRateLimitOn: false });
const other = await startServer(t, { database, isRateLimitOn: false });
const { c1, rs1 } = await createCast(one);

const isActive = async (on: TestServer, accessToken: string): Promise<boolean> =>
  (await introspect(on, rs1, accessToken)).body.active;

t.test('REV-14 RFC 7009 §2.1: the very next request sees it, on either instance', async (t) => {
  for (const [here, there] of [
    [one, other],
    [other, one],
    [one, one],
  ] as const) {
    const { access_token, refresh_token } = (await login(here, c1)).body;
    t.ok(await isActive(there, access_token));
    await revoke(here, c1, access_token);
    t.notOk(await isActive(there, access_token), 'the access token');

    const second = (await refresh(there, c1, refresh_token)).body;
    t.ok(await isActive(there, second.access_token));
    await revoke(here, c1, second.refresh_token);
    t.notOk(await isActive(there, second.access_token), 'what belongs to the refresh token');
    t.equal((await refresh(there, c1, second.refresh_token)).status, 400, 'and itself');
  }
});

/** A connection that has just ended may be taken for a living one once more. */
async function answersAgain(server: TestServer): Promise<void> {
  for (let tries = 0; tries < 50; tries++) {
    if ((await introspect(server, rs1, 'any token')).status === 200) return;
  }
}

/** Runs work while the database is in a state that all of its connections meet. */
async function whileDatabase(
  { is, isNot }: { is: string; isNot: string },
  work: () => Promise<void>,
): Promise<void> {
  const maintenance = new URL(database.url);
  const name = maintenance.pathname.slice(1);
  maintenance.pathname = '/postgres';
  const enter = (state: string) =>
    administer(
      maintenance.href,
      `alter database ${name} ${state}`,
      `select pg_terminate_backend(pid, 5000) from pg_stat_activity where datname = '${name}'`,
    );
  await enter(is);
  await work().finally(() => enter(isNot));
  for (const server of [one, other]) await answersAgain(server);
}

const troubles = {
  'takes no connections': { is: 'allow_connections false', isNot: 'allow_connections true' },
  // As after a failover, while connections still lead to a standby.
  'takes no writes': {
    is: 'set default_transaction_read_only = on',
    isNot: 'reset default_transaction_read_only',
  },
};

t.test('REV-17 RFC 7009 §2.2.1: what cannot be made durable is 503, and not done', async (t) => {
  for (const [name, trouble] of Object.entries(troubles)) {
    const { access_token, refresh_token } = (await login(one, c1)).body;
    await whileDatabase(trouble, async () => {
      for (const token of [access_token, refresh_token]) {
        const answer = await revoke(one, c1, token);
        hasFailed(t, answer, 503, 'temporarily_unavailable', `a database that ${name}`);
        t.match(answer.headers.get('retry-after'), /^[1-9][0-9]*$/, name);
      }
    });
    t.ok(await isActive(one, access_token), 'the client assumes that the token still exists');
    t.equal((await revoke(one, c1, refresh_token)).status, 200, 'and tries again');
    t.notOk(await isActive(other, access_token));
  }
});

/** What the log says about revocations that did something. */
const countEffects = (effect: string): number =>
  [...one.logs, ...other.logs]
    .map((line) => JSON.parse(line))
    .filter((line) => line.event === 'revoke' && line.effect === effect).length;

t.test('REV-18 RFC 7009 §2.2: of 100 parallel revocations one has an effect', async (t) => {
  const { access_token, refresh_token } = (await login(one, c1)).body;
  for (const [token, effect] of [
    [access_token, 'access-token-revoked'],
    [refresh_token, 'family-revoked'],
  ] as const) {
    const before = [countEffects(effect), countEffects('none')] as const;
    const answers = await Promise.all(
      Array.from({ length: 100 }, (_, index) => revoke(index % 2 ? one : other, c1, token)),
    );
    t.strictSame(new Set(answers.map(({ status }) => status)), new Set([200]));
    t.equal(countEffects(effect) - before[0], 1, 'one line tells of an effect');
    t.equal(countEffects('none') - before[1], 99, 'and all others that there was none');
  }
});

/** Holds the row of a token's family, as an operator or an instance that hangs may do. */
async function holdRow(token: string): Promise<() => Promise<void>> {
  const holding = await database.inspect.connect();
  await holding.query('begin');
  await holding.query('select from token_family where id = $1 for update', [
    parseOpaqueToken(token)?.familyId,
  ]);
  return async () => {
    await holding.query('rollback');
    holding.release();
  };
}

t.test('revocations that wait for a row leave connections to everybody else', async (t) => {
  const { maximumConnections } = loadConfig({});
  for (const kind of ['access_token', 'refresh_token']) {
    const held = (await login(one, c1)).body;
    const free = (await login(one, c1)).body;
    const release = await holdRow(held[kind]);
    let answered = 0;
    const waiting = Array.from({ length: 3 * maximumConnections }, async () => {
      const answer = await revoke(one, c1, held[kind]);
      answered++;
      return answer;
    });
    await delay(100);
    t.ok(await isActive(one, free.access_token), kind);
    t.equal((await revoke(one, c1, free.access_token)).status, 200);
    t.equal((await refresh(one, c1, free.refresh_token)).status, 200);
    t.equal(answered, 0, 'before anybody who waits for the row has given up');
    for (const answer of await Promise.all(waiting)) {
      hasFailed(t, answer, 503, 'temporarily_unavailable');
    }
    await release();
    t.ok(await isActive(other, held.access_token), 'nothing has happened');
    t.equal((await revoke(one, c1, held[kind])).status, 200);
    t.notOk(await isActive(other, held.access_token));
  }
});

t.test('all that a family has can be revoked at once, when its row is free again', async (t) => {
  const first = (await login(one, c1)).body;
  const accessTokens = [first.access_token];
  for (let token = first.refresh_token; accessTokens.length < 16; ) {
    const { body } = await refresh(one, c1, token);
    accessTokens.push(body.access_token);
    token = body.refresh_token;
  }
  const release = await holdRow(first.access_token);
  const before = countEffects('access-token-revoked');
  const waiting = accessTokens.map((token, index) => revoke(index % 2 ? one : other, c1, token));
  await delay(200);
  await release();
  const statuses = (await Promise.all(waiting)).map(({ status }) => status);
  t.strictSame(new Set(statuses), new Set([200]));
  t.equal(countEffects('access-token-revoked') - before, accessTokens.length);
  for (const token of accessTokens) t.notOk(await isActive(one, token));
});
