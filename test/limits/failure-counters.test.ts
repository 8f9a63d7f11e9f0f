/**
 * Guessing passwords and client secrets, as a stranger and as the one who is being guessed.
 *
 *   429 {"error":"temporarily_unavailable"} with Retry-After (RFC 6585 §4, RFC 9110 §10.2.3)
 */
import t, { type Test } from 'tap';
import { digest } from '../../src/oauth/opaque-token.ts';
import { createFailureCounters } from '../../src/storage/failure-counters.ts';
import { openLoginPool } from '../../src/storage/login-pool.ts';
import { prune } from '../../src/storage/prune.ts';
import { type Answer, basic, post } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import { ALICE_PASSWORD, createCast, invalidGrantBody } from '../support/fixtures.ts';
import { matchEach } from '../support/match.ts';
import { startServer, type TestServer, type TestServerOptions } from '../support/server.ts';

interface Scene extends TestServer {
  /** A login with a wrong password, unless told otherwise. */
  readonly guess: (from: string, given?: Record<string, string>) => Promise<Answer>;
  readonly logIn: (from: string) => Promise<Answer>;
}

/** A server of its own for each test, behind a proxy that says where requests come from. */
async function startScene(t: Test, options: TestServerOptions = {}): Promise<Scene> {
  const server = await startServer(t, { trustProxy: 1, ...options });
  if (options.database === undefined) await createCast(server);
  const guess: Scene['guess'] = (from, given = {}) =>
    post(
      `${server.url}/token`,
      {
        grant_type: 'password',
        client_id: 'P1',
        username: 'alice',
        password: 'a guess like any other',
        ...given,
      },
      { 'x-forwarded-for': from },
    );
  return { ...server, guess, logIn: (from) => guess(from, { password: ALICE_PASSWORD }) };
}

const statuses = (answers: readonly Answer[]) => answers.map(({ status }) => status);
const repeat = <T>(count: number, value: T): T[] => Array.from({ length: count }, () => value);

/** One after the other, so that the order of answers is that of requests. */
async function inTurn(count: number, ask: (n: number) => Promise<Answer>): Promise<Answer[]> {
  const answers: Answer[] = [];
  for (let n = 0; n < count; n++) answers.push(await ask(n));
  return answers;
}

function isTooMany(t: Test, answer: Answer | undefined, why = '429'): void {
  t.equal(answer?.status, 429, why);
  t.strictSame(answer?.body, { error: 'temporarily_unavailable' }, why);
  t.match(answer?.headers.get('retry-after'), /^[1-9]\d*$/, why);
  t.equal(answer?.headers.get('cache-control'), 'no-store', why);
}

const HOME = '203.0.113.7';
const ELSEWHERE = '198.51.100.9';

t.test(
  'RAT-01 RFC 6749 §4.3.2: the eleventh guess at an account from one address waits',
  async (t) => {
    const { guess, logIn } = await startScene(t);
    const answers = await inTurn(10, () => guess(ELSEWHERE));
    for (const { status, body } of answers) {
      t.equal(status, 400);
      t.strictSame(body, invalidGrantBody);
    }
    isTooMany(t, await guess(ELSEWHERE));
    isTooMany(t, await logIn(ELSEWHERE), 'the right password waits too');
  },
);

t.test('RAT-02 ASVS 6.1.1: whoever guesses locks nobody out elsewhere', async (t) => {
  const { guess, logIn } = await startScene(t);
  await inTurn(12, () => guess(ELSEWHERE));
  t.equal((await logIn(HOME)).status, 200);
});

t.test('RAT-03 ASVS 6.3.1: an address that fails on fifty accounts waits', async (t) => {
  const { guess, logIn, inspect, logs, dependencies } = await startScene(t);
  // Through two clients: each has a limit of its own for logins from one address.
  await dependencies.clients.create({
    clientId: 'P2',
    clientType: 'public',
    grantTypes: ['password'],
    scope: ['read'],
  });
  // Made-up names may share a count, people never do.
  await inspect.query(
    `insert into resource_owner (username) select 'person-' || n from generate_series(0, 50) n`,
  );
  const answers = await inTurn(50, (n) =>
    guess(ELSEWHERE, { username: `person-${n}`, client_id: n % 2 ? 'P1' : 'P2' }),
  );
  t.strictSame(statuses(answers), repeat(50, 400));
  isTooMany(t, await guess(ELSEWHERE, { username: 'person-3' }), 'an account tried before');
  isTooMany(t, await guess(ELSEWHERE, { username: 'person-50' }));
  isTooMany(t, await guess(ELSEWHERE, { username: 'nobody' }), 'an account that does not exist');
  isTooMany(t, await logIn(ELSEWHERE), 'a right password');
  t.equal((await logIn(HOME)).status, 200);
  const { rows } = await inspect.query('select kind, subject, address from security_event');
  t.strictSame(rows, [{ kind: 'password_spraying', subject: null, address: ELSEWHERE }]);
  const warnings = logs.map((line) => JSON.parse(line)).filter(({ level }) => level === 40);
  matchEach(t, warnings, [{ event: 'password_spraying', address: ELSEWHERE }]);
  t.equal(warnings.length, 1);
});

t.test(
  'RAT-04 NIST SP 800-63B-4 §3.2.2: after a hundred failures strangers share one guess in 30 s, and the owner has their own',
  async (t) => {
    const { url, guess, logIn, inspect, logs } = await startScene(t);
    const session = await logIn(HOME);
    const answers = await inTurn(150, (n) => guess(`192.0.2.${n}`));
    t.strictSame(statuses(answers), [...repeat(100, 400), ...repeat(50, 429)]);
    t.ok(Number(answers[149]?.headers.get('retry-after')) <= 30);
    isTooMany(t, await logIn(ELSEWHERE), 'a stranger with the right password');

    const refreshed = await post(`${url}/token`, {
      grant_type: 'refresh_token',
      client_id: 'P1',
      refresh_token: session.body.refresh_token,
    });
    t.equal(refreshed.status, 200, 'an open session goes on');

    await inspect.query(
      'update failure_counter set throttled_until = clock_timestamp() where throttled_until is not null',
    );
    const next = await Promise.all(repeat(5, 0).map((_, n) => guess(`192.0.2.20${n}`)));
    t.strictSame(statuses(next).sort(), [400, 429, 429, 429, 429], 'one turn for all strangers');

    t.equal((await guess('203.0.113.99')).status, 400, 'the neighbourhood has its own budget');
    t.equal((await logIn('203.0.113.99')).status, 200);
    t.equal((await logIn(ELSEWHERE)).status, 200, 'a success clears the account');

    const { rows } = await inspect.query('select kind, client_id from security_event');
    t.strictSame(rows, [{ kind: 'password_guessing', client_id: 'P1' }], 'not one per guess');
    const warnings = logs.map((line) => JSON.parse(line)).filter(({ level }) => level === 40);
    t.equal(warnings.length, 1);
  },
);

t.test('what was counted for an account is forgotten a day after the last failure', async (t) => {
  const { guess, logIn, inspect } = await startScene(t);
  await inTurn(101, (n) => guess(`192.0.2.${n}`));
  const endIn = (time: string) =>
    inspect.query('update failure_counter set expires_at = clock_timestamp() + $1::interval', [
      time,
    ]);
  await endIn('1 hour');
  isTooMany(t, await guess(ELSEWHERE));
  const { rows } = await inspect.query(
    `select expires_at > clock_timestamp() + interval '23 hours' as "isLonger"
     from failure_counter where get_byte(key, 0) = 3`,
  );
  t.strictSame(rows, [{ isLonger: true }], 'each failure starts the day again');
  await endIn('0');
  t.equal((await logIn(ELSEWHERE)).status, 200);
});

t.test('networks from which nobody came for a month are strangers', async (t) => {
  const { guess, logIn, inspect, dependencies } = await startScene(t);
  await logIn(HOME);
  await inTurn(100, (n) => guess(`192.0.2.${n}`));
  t.equal((await guess(HOME)).status, 400);
  await inspect.query("update familiar_network set last_login_at = now() - interval '31 days'");
  isTooMany(t, await guess(HOME));
  t.match(await prune(dependencies.database), { familiarNetworks: 1, failureCounters: 0 });
});

t.test('thirty-two networks of a person are remembered', async (t) => {
  const { logIn, inspect } = await startScene(t);
  for (let n = 0; n < 40; n++) await logIn(`203.0.${n}.1`);
  const { rows } = await inspect.query(
    'select network from familiar_network order by last_login_at',
  );
  t.equal(rows.length, 32);
  t.equal(rows.at(-1)?.network, '203.0.39.0/24');
  t.equal(rows.at(0)?.network, '203.0.8.0/24');
});

t.test('RAT-05 ASVS 6.3.8: accounts that do not exist have the same thresholds', async (t) => {
  const { guess, inspect } = await startScene(t);
  const nobody = { username: 'nobody at all' };
  const answers = await inTurn(12, () => guess(ELSEWHERE, nobody));
  t.strictSame(statuses(answers), [...repeat(10, 400), 429, 429]);
  isTooMany(t, answers[11]);
  const spread = await inTurn(100, (n) => guess(`192.0.2.${n}`, nobody));
  t.strictSame(statuses(spread), [...repeat(90, 400), ...repeat(10, 429)]);
  const { rows } = await inspect.query("select encode(key, 'escape') from failure_counter");
  t.notMatch(JSON.stringify(rows), /nobody/);
});

t.test('RAT-06 RFC 8265 §3: all ways to write one name share one counter', async (t) => {
  const { guess, dependencies } = await startScene(t);
  await dependencies.resourceOwners.create('zoë', ALICE_PASSWORD);
  const names = ['zoë', 'ZOË', 'zoe\u0308', 'Zoe\u0308'];
  const answers = await inTurn(12, (n) =>
    guess(ELSEWHERE, { username: names[n % names.length] as string }),
  );
  t.strictSame(statuses(answers), [...repeat(10, 400), 429, 429]);
});

t.test('RAT-07 RFC 6177 §2: an IPv6 /64 is one network, a mapped address is IPv4', async (t) => {
  const { guess } = await startScene(t);
  await inTurn(10, (n) => guess(`2001:db8:1:1::${n}`));
  isTooMany(t, await guess('2001:db8:1:1:ffff::2'));
  t.equal((await guess('2001:db8:1:2::1')).status, 400);
  await inTurn(10, () => guess('::ffff:192.0.2.1'));
  isTooMany(t, await guess('192.0.2.1'));
});

t.test('RAT-10 ASVS 6.3.1: two instances count together', async (t) => {
  const database = await createTestDatabase(t);
  const one = await startScene(t, { database });
  await createCast(one);
  const two = await startScene(t, { database });
  const answers = await inTurn(12, (n) => (n % 2 ? one : two).guess(ELSEWHERE));
  t.strictSame(statuses(answers), [...repeat(10, 400), 429, 429]);
});

t.test('RAT-11 ASVS 6.3.1: a restart forgets nothing', async (t) => {
  const database = await createTestDatabase(t);
  const before = await startScene(t, { database });
  await createCast(before);
  await inTurn(10, () => before.guess(ELSEWHERE));
  await before.app.close();
  isTooMany(t, await (await startScene(t, { database })).logIn(ELSEWHERE));
});

t.test('RAT-12 RFC 9110 §10.2.3: whoever waits as long as was said is evaluated', async (t) => {
  const { guess, logIn, inspect } = await startScene(t);
  await inTurn(10, () => guess(ELSEWHERE));
  await inspect.query(
    "update failure_counter set expires_at = clock_timestamp() + interval '1.5 s'",
  );
  const refused = await logIn(ELSEWHERE);
  t.equal(refused.headers.get('retry-after'), '2');
  await new Promise((resolve) => setTimeout(resolve, 2000));
  t.equal((await logIn(ELSEWHERE)).status, 200);
});

t.test(
  'a stranger who waits as told for an account that is being guessed is evaluated',
  async (t) => {
    const { guess, logIn, inspect } = await startScene(t);
    await inTurn(101, (n) => guess(`192.0.2.${n}`));
    for (const answer of await inTurn(15, () => logIn(ELSEWHERE))) isTooMany(t, answer);
    await inspect.query('update failure_counter set throttled_until = clock_timestamp()');
    t.equal((await logIn(ELSEWHERE)).status, 200, 'refusals before did not spend the ten a minute');
  },
);

t.test('RAT-14 ASVS 15.2.2: a refusal costs no hash', async (t) => {
  const argon2 = { memoryKibibytes: 64 * 1024, iterations: 4, parallelism: 1 };
  const { guess } = await startScene(t, { argon2 });
  const timed = async () => {
    const began = performance.now();
    const { status } = await guess(ELSEWHERE);
    return { status, milliseconds: performance.now() - began };
  };
  const median = (values: number[]) => values.sort((a, b) => a - b)[values.length >> 1] as number;
  const hashed: number[] = [];
  const refused: number[] = [];
  for (let n = 0; n < 20; n++) {
    const { status, milliseconds } = await timed();
    (status === 400 ? hashed : refused).push(milliseconds);
  }
  t.equal(hashed.length, 10);
  t.ok(median(hashed) > 5 * median(refused), `${median(hashed)} ms, ${median(refused)} ms`);
});

t.test('parallel guesses cannot slip past', async (t) => {
  const { guess, inspect } = await startScene(t);
  const answers = await Promise.all(repeat(300, 0).map(() => guess(ELSEWHERE)));
  t.equal(answers.filter(({ status }) => status === 400).length, 10);
  t.equal(answers.filter(({ status }) => status === 429).length, 290);
  const { rows } = await inspect.query("select failures from failure_counter where key < '\\x04'");
  t.strictSame(
    rows.map(({ failures }) => Number(failures)).sort((a, b) => a - b),
    [1, 10, 30],
  );
});

t.test(
  'PWD-20 NIST SP 800-63B-4 §3.2.2: a login clears what was counted for the account',
  async (t) => {
    const { guess, logIn } = await startScene(t);
    for (let round = 0; round < 3; round++) {
      t.strictSame(statuses(await inTurn(9, () => guess(HOME))), repeat(9, 400));
      t.equal((await logIn(HOME)).status, 200);
    }
  },
);

t.test('logins that succeed are no failures, however many there are', async (t) => {
  const { logIn, inspect } = await startScene(t);
  for (let round = 0; round < 3; round++) {
    const answers = await Promise.all(repeat(8, 0).map(() => logIn(HOME)));
    t.strictSame(statuses(answers), repeat(8, 200));
  }
  const { rows } = await inspect.query('select failures from failure_counter where failures > 0');
  t.strictSame(rows, []);
});

t.test('what was not verified is not counted', async (t) => {
  const { logIn, inspect } = await startScene(t, { hashQueueLimit: 0 });
  const answers = await Promise.all(repeat(30, 0).map((_, n) => logIn(`192.0.2.${n}`)));
  t.ok(
    answers.some(({ status }) => status === 503),
    'the gate was full',
  );
  const { rows } = await inspect.query('select failures from failure_counter where failures > 0');
  t.strictSame(rows, []);
});

t.test(
  'a login that its client has left is not verified, not counted, and leaves its place',
  async (t) => {
    const argon2 = { memoryKibibytes: 64 * 1024, iterations: 3, parallelism: 1 };
    const { url, logIn, inspect } = await startScene(t, { argon2, hashQueueLimit: 30 });
    const controller = new AbortController();
    const leaving = Array.from({ length: 30 }, (_, n) =>
      fetch(`${url}/token`, {
        method: 'POST',
        signal: controller.signal,
        headers: { 'x-forwarded-for': `192.0.2.${n}` },
        body: new URLSearchParams({
          grant_type: 'password',
          client_id: 'P1',
          username: 'alice',
          password: ALICE_PASSWORD,
        }),
      }).catch(() => {}),
    );
    await new Promise((resolve) => setTimeout(resolve, 150));
    controller.abort();
    await Promise.all(leaving);
    const counted = async () => {
      const { rows } = await inspect.query(
        'select failures from failure_counter where failures > 0',
      );
      return rows.length;
    };
    while ((await counted()) > 0) await new Promise((resolve) => setTimeout(resolve, 20));
    const { rows } = await inspect.query('select from token_family');
    t.ok(rows.length < 30, 'most were dropped before they were hashed');
    t.equal((await logIn(HOME)).status, 200);
  },
);

t.test('an account that failed counts for the network, whoever else has left', async (t) => {
  const database = await createTestDatabase(t);
  const { databaseUrl } = await startServer(t, { database });
  const pool = openLoginPool({ databaseUrl, maximumConnections: 2, deadlineSeconds: 5 });
  t.teardown(() => pool.close());
  const bounds = { maximumBatch: 64, maximumWaiting: 4096, maximumInFlight: 2 };
  const counters = createFailureCounters(pool, bounds);
  const reserve = async (username: string, subject?: string) => {
    const attempt = await counters.reserveLogin({
      subject,
      usernameDigest: digest(username),
      network: ELSEWHERE,
      clientId: 'P1',
    });
    if (attempt.outcome === 'refused') throw new Error('refused');
    return attempt;
  };
  const countedForNetwork = async () => {
    const { rows } = await database.inspect.query(
      'select failures::int from failure_counter where get_byte(key, 0) = 2',
    );
    return rows[0].failures;
  };
  for (const isLastToFail of [true, false]) {
    const [one, other] = [await reserve(`${isLastToFail}`), await reserve(`${isLastToFail}`)];
    const [failing, leaving] = isLastToFail ? [other, one] : [one, other];
    await leaving.released();
    failing.failed();
  }
  t.equal(await countedForNetwork(), 2, 'the first attempt or the second');
  const [one, other] = [await reserve('nobody'), await reserve('nobody')];
  await one.released();
  t.equal(await countedForNetwork(), 3);
  await other.released();
  t.equal(await countedForNetwork(), 2, 'nothing was verified');

  // As if its windows had ended meanwhile and others had begun.
  const { rows: people } = await database.inspect.query(
    "insert into resource_owner (username) values ('too late') returning id",
  );
  const [late, tooLate] = [await reserve('late'), await reserve('too late', people[0].id)];
  const moveWindows = (kind: number) =>
    database.inspect.query(
      `update failure_counter set expires_at = expires_at + interval '1 s'
       where get_byte(key, 0) = $1`,
      [kind],
    );
  await moveWindows(1);
  await late.released();
  t.equal(await countedForNetwork(), 4, 'what another window has counted is not given back');
  const { rows } = await database.inspect.query(
    `select failures::int from failure_counter
     where get_byte(key, 0) = 1 order by expires_at desc limit 2`,
  );
  t.strictSame(rows, [{ failures: 1 }, { failures: 1 }]);
  await moveWindows(2);
  await tooLate.succeeded();
  t.equal(await countedForNetwork(), 4, 'nor after a login');
});

t.test('without counters nobody logs in, and everybody else goes on', async (t) => {
  const { url, logIn, guess, inspect } = await startScene(t);
  const session = await logIn(HOME);
  const locker = await inspect.connect();
  await locker.query('begin; lock table failure_counter in access exclusive mode');
  const refused = await guess(HOME);
  t.equal(refused.status, 503);
  t.ok(refused.headers.get('retry-after'));
  const unauthenticated = await post(`${url}/introspect`, { token: 'x' }, basic('RS1', 'wrong'));
  t.equal(unauthenticated.status, 401, 'who has failed has failed');
  const refreshed = await post(`${url}/token`, {
    grant_type: 'refresh_token',
    client_id: 'P1',
    refresh_token: session.body.refresh_token,
  });
  t.equal(refreshed.status, 200);
  await locker.query('rollback');
  locker.release();
  t.equal((await logIn(HOME)).status, 200);
});

t.test(
  'CLA-26 RFC 6749 §2.3.1: wrong secrets of a client are slowed down, the right one never is',
  async (t) => {
    const server = await startServer(t, { trustProxy: 1 });
    const { c1 } = await createCast(server);
    const ask = (endpoint: string, secret: string, from: string) =>
      post(
        `${server.url}${endpoint}`,
        { token: 'x', grant_type: 'password', username: 'alice', password: ALICE_PASSWORD },
        { ...basic(c1.id, secret), 'x-forwarded-for': from },
      );
    const endpoints = ['/introspect', '/token', '/revoke'];
    const answers = await inTurn(20, (n) =>
      ask(endpoints[n % 3] as string, 'hcs_wrong', ELSEWHERE),
    );
    t.strictSame(statuses(answers), repeat(20, 401));
    for (const endpoint of endpoints) isTooMany(t, await ask(endpoint, 'hcs_wrong', ELSEWHERE));
    t.equal((await ask('/introspect', c1.secret, HOME)).status, 200);
    t.equal((await ask('/introspect', c1.secret, ELSEWHERE)).status, 200, 'not even from there');
    t.equal((await ask('/token', c1.secret, ELSEWHERE)).status, 200);
    t.equal((await ask('/introspect', 'hcs_wrong', HOME)).status, 401);

    const unknown = await inTurn(22, () =>
      post(
        `${server.url}/introspect`,
        { token: 'x' },
        { ...basic('no-one', 'x'), 'x-forwarded-for': HOME },
      ),
    );
    t.strictSame(statuses(unknown), [...repeat(20, 401), 429, 429], 'known or not');
    const { rows } = await server.inspect.query(
      'select kind, client_id from security_event order by id',
    );
    t.strictSame(rows, [
      { kind: 'client_secret_guessing', client_id: 'C1' },
      // A name that is nobody's may be a secret in the wrong place.
      { kind: 'client_secret_guessing', client_id: null },
    ]);
  },
);
