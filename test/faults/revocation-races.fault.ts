/** Promise 3 of `design`: whatever races a revocation, nothing of the old credential is alive after both answers. */
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { type Config, loadConfig } from '../../src/config.ts';
import { createDependencies, type Dependencies } from '../../src/dependencies.ts';
import type { Answer } from '../support/client.ts';
import { cheapArgon2, startServer } from '../support/server.ts';
import { type DatabaseProxy, startDatabaseProxy } from './database-proxy.ts';
import {
  createLoadClient,
  introspect,
  type LoadClient,
  login,
  PASSWORD,
  peopleNamed,
  type Reply,
  refresh,
  revoke,
  type Target,
} from './load.ts';
import { startPostgres } from './support.ts';
import { inTurns, printFigures } from './verify.ts';

t.setTimeout(240_000);

const ROUNDS = 300;
/** Races that run beside each other, each about a person of its own. */
const LANES = 6;

const postgres = await startPostgres(t);

interface Scene {
  readonly client: LoadClient;
  /** The first is the one that issues, the second the one that revokes; both must tell the truth. */
  readonly targets: readonly [Target, Target];
  readonly people: Dependencies['resourceOwners'];
  /** Before the first server. */
  readonly proxy: DatabaseProxy;
}

/** Two servers and an administrator, each with a pool of its own, in this process: hashing would dominate. */
async function setUp(t: Test, argon2: Config['argon2'] = cheapArgon2): Promise<Scene> {
  const { url, inspect } = await postgres.createDatabase();
  const client = await createLoadClient({ url, inspect }, []);
  const settings = { argon2, isRateLimitOn: false, logLevel: 'silent' } as const;
  const proxy = await startDatabaseProxy(t, url);
  const one = await startServer(t, { ...settings, database: { url: proxy.url, inspect } });
  const other = await startServer(t, { ...settings, database: { url, inspect } });
  const config = { ...loadConfig({ DATABASE_URL: url }), ...settings };
  const admin = await createDependencies(config, { isMigrating: false, notice: () => {} });
  t.teardown(() => admin.close());
  for (const name of peopleNamed('person', LANES)) {
    await admin.resourceOwners.create(name, PASSWORD);
  }
  return {
    client,
    targets: [() => one.url, () => other.url],
    people: admin.resourceOwners,
    proxy,
  };
}

/**
 * Starts two requests so that either may be first: after each round the one that won starts a little
 * later, so most rounds are decided in the database and not on the way to it.
 */
class Balance {
  #leadMilliseconds = 0;

  async race<One, Other>(one: () => Promise<One>, other: () => Promise<Other>) {
    const lead = this.#leadMilliseconds + Math.random() * 4 - 2;
    return Promise.all([delay(Math.max(0, lead)).then(one), delay(Math.max(0, -lead)).then(other)]);
  }

  /** How long to wait before the other request, where the first one is under way already. */
  handicap = (): Promise<void> =>
    delay(Math.max(0, -this.#leadMilliseconds + Math.random() * 10 - 5));

  note({ isFirst }: { isFirst: boolean }): void {
    this.#leadMilliseconds += isFirst ? 0.5 : -0.5;
  }
}

/** What came of many rounds. */
class Tally {
  /** Each is one line. */
  readonly wrongs: string[] = [];
  /** Answers of the request that raced, by status. */
  readonly statuses: Record<number, number> = {};
  readonly balance = new Balance();
  /** Every token that was ever seen and must stay dead. */
  readonly dead = new Set<string>();
}

function note(
  { wrongs, statuses, balance }: Tally,
  reply: Reply,
  isFirst = reply.status === 200,
): void {
  balance.note({ isFirst });
  statuses[reply.status] = (statuses[reply.status] ?? 0) + 1;
  if (reply.status !== 200 && reply.status !== 400) wrongs.push(`answer ${reply.status}`);
}

const granted = (reply: Reply): Answer['body'] | undefined =>
  reply.status === 200 ? (reply as Answer).body : undefined;

/** Nothing of these may be active on any server; each is remembered. */
async function expectDead(
  { wrongs, dead }: Tally,
  { targets, client }: Scene,
  tokens: readonly (string | undefined)[],
  when: string,
): Promise<void> {
  for (const token of tokens) {
    if (token === undefined) continue;
    dead.add(token);
    for (const target of targets) {
      const reply = (await introspect(target, client, token)) as Answer;
      if (reply.status !== 200 || reply.text !== '{"active":false}') {
        wrongs.push(
          `${when}: a ${token.slice(0, 3)} token is ${reply.status} ${reply.body?.active}`,
        );
      }
    }
    if (!token.startsWith('hrt_')) continue;
    const reply = await refresh(targets[0], client, token);
    if (reply.status !== 400) wrongs.push(`${when}: a refresh token is answered ${reply.status}`);
  }
}

/** Runs the rounds in lanes, one person each, and reports. */
async function runRounds(
  t: Test,
  scene: Scene,
  round: (tally: Tally, name: string, index: number) => Promise<void>,
  lanes = LANES,
): Promise<void> {
  const tally = new Tally();
  await Promise.all(
    peopleNamed('person', lanes).map(async (name) => {
      for (let index = 0; index < ROUNDS / lanes; index++) await round(tally, name, index);
    }),
  );
  // Once more, when everything has long been committed.
  const { client, targets } = scene;
  await inTurns([...tally.dead], 8, async (token) => {
    const reply = await introspect(targets[1], client, token);
    if (granted(reply)?.active !== false) tally.wrongs.push('a token has come to life again');
  });
  t.strictSame(tally.wrongs, [], 'nothing of the old credential is alive');
  const { 200: won = 0, 400: lost = 0 } = tally.statuses;
  t.equal(won + lost, ROUNDS, 'every request that raced was answered');
  t.ok(won > 0 && lost > 0, 'both orders happened');
  printFigures(t, {
    rounds: ROUNDS,
    'the issuing request was first (200)': won,
    'the revoking one was first (400)': lost,
    'tokens checked dead': tally.dead.size,
  });
}

async function loggedIn(
  { targets, client }: Scene,
  name: string,
  password = PASSWORD,
): Promise<Answer['body']> {
  const reply = await login(targets[0], client, name, password);
  const body = granted(reply);
  if (body === undefined) throw new Error(`login is answered ${reply.status}`);
  return body;
}

t.test('refresh racing revoke', async (t) => {
  const scene = await setUp(t);
  const { targets, client } = scene;
  await runRounds(t, scene, async (tally, name) => {
    const { access_token, refresh_token } = await loggedIn(scene, name);
    const [refreshed, revoked] = await tally.balance.race(
      () => refresh(targets[0], client, refresh_token),
      () => revoke(targets[1], client, refresh_token),
    );
    note(tally, refreshed);
    if (revoked.status !== 200) tally.wrongs.push(`revoke is answered ${revoked.status}`);
    const { access_token: access, refresh_token: successor } = granted(refreshed) ?? {};
    await expectDead(tally, scene, [access_token, access, successor, refresh_token], 'revoked');
  });
});

t.test('refresh racing a password change', async (t) => {
  const scene = await setUp(t);
  const { targets, client, people } = scene;
  const passwords = new Map<string, string>();
  await runRounds(t, scene, async (tally, name, index) => {
    const password = passwords.get(name);
    const { access_token, refresh_token } = await loggedIn(scene, name, password);
    const next = `another phrase for round ${index}`;
    const [refreshed] = await tally.balance.race(
      () => refresh(targets[0], client, refresh_token),
      () => people.setPassword(name, next),
    );
    passwords.set(name, next);
    note(tally, refreshed);
    const { access_token: access, refresh_token: successor } = granted(refreshed) ?? {};
    await expectDead(tally, scene, [access_token, access, successor, refresh_token], 'changed');
  });
});

t.test('refresh racing a disable, and enabling again', async (t) => {
  const scene = await setUp(t);
  const { targets, client, people } = scene;
  await runRounds(t, scene, async (tally, name) => {
    const { access_token, refresh_token } = await loggedIn(scene, name);
    const [refreshed] = await tally.balance.race(
      () => refresh(targets[0], client, refresh_token),
      () => people.disable(name),
    );
    note(tally, refreshed);
    const { access_token: access, refresh_token: successor } = granted(refreshed) ?? {};
    const tokens = [access_token, access, successor, refresh_token];
    await expectDead(tally, scene, tokens, 'disabled');
    await people.enable(name);
    await expectDead(tally, scene, tokens, 'enabled again');
  });
});

t.test('login racing a password change', async (t) => {
  const scene = await setUp(t);
  const { targets, client, people } = scene;
  const passwords = new Map<string, string>();
  await runRounds(t, scene, async (tally, name, index) => {
    const old = passwords.get(name);
    const next = `another phrase for round ${index}`;
    const [loggedInWithOld] = await tally.balance.race(
      () => login(targets[0], client, name, old),
      () => people.setPassword(name, next),
    );
    passwords.set(name, next);
    note(tally, loggedInWithOld);
    const { access_token, refresh_token } = granted(loggedInWithOld) ?? {};
    await expectDead(tally, scene, [access_token, refresh_token], 'changed');
    if (index % 10 !== 0) return;
    const after = await login(targets[1], client, name, old);
    if (after.status !== 400) tally.wrongs.push(`the old password is answered ${after.status}`);
  });
});

t.test('login that read the person before a disable and an enable', async (t) => {
  // Long enough to verify that disable and enable can both happen meanwhile.
  const scene = await setUp(t, { memoryKibibytes: 8192, iterations: 2, parallelism: 1 });
  const { targets, client, people, proxy } = scene;
  const round = async (tally: Tally, name: string, index: number) => {
    const hasRead = proxy.answered('heirloom-find-resource-owner');
    const loggingIn = login(targets[0], client, name);
    await hasRead;
    await tally.balance.handicap();
    await people.disable(name);
    await people.enable(name);
    const reply = await loggingIn;
    note(tally, reply);
    const { access_token, refresh_token } = granted(reply) ?? {};
    await expectDead(tally, scene, [access_token, refresh_token], 'disabled and enabled');
    if (index % 20 === 0 && granted(await login(targets[1], client, name)) === undefined) {
      tally.wrongs.push('a login after the enable is refused');
    }
  };
  await runRounds(t, scene, round, 1);
});

t.test('retry of a lost response racing the revocation of its access token', async (t) => {
  const scene = await setUp(t);
  const { targets, client } = scene;
  const tally = new Tally();
  const counts = { same: 0, fresh: 0 };
  await inTurns(Array.from({ length: ROUNDS }), LANES, async (_, index) => {
    const { refresh_token } = await loggedIn(scene, `person-${index % LANES}`);
    const { access_token } = granted(await refresh(targets[0], client, refresh_token));
    const [retried, revoked] = await tally.balance.race(
      () => refresh(targets[0], client, refresh_token),
      () => revoke(targets[1], client, access_token),
    );
    const { access_token: answered, refresh_token: successor } = granted(retried) ?? {};
    note(tally, retried, answered === access_token);
    if (revoked.status !== 200) tally.wrongs.push(`revoke is answered ${revoked.status}`);
    await expectDead(tally, scene, [access_token], 'access token revoked');
    counts[answered === access_token ? 'same' : 'fresh']++;
    const isGood = async (token: string) =>
      ((await introspect(targets[1], client, token)) as Answer).body.active;
    if (answered !== access_token && !(await isGood(answered))) tally.wrongs.push('fresh is dead');
    if (!(await isGood(successor))) tally.wrongs.push('the family did not go on');
  });
  t.strictSame(tally.wrongs, [], 'a retry never brings a revoked access token back');
  t.strictSame(tally.statuses, { 200: ROUNDS }, 'and is always granted');
  printFigures(t, {
    rounds: ROUNDS,
    'answered with the access token of the rotation': counts.same,
    'answered with a fresh one': counts.fresh,
  });
});
