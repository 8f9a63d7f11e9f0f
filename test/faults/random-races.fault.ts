/**
 * Random bursts of requests on two servers, while connections end, statements are cancelled, rows are held
 * and housekeeping prunes. Nobody can say who wins a race; what may not come of it is known all the same:
 * a client that keeps to the rules is never refused and gets one successor, and of a family that was ended
 * nothing lives on.
 *
 * The seed repeats what is sent and not who wins.
 */
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { loadConfig } from '../../src/config.ts';
import { createDependencies, type Dependencies } from '../../src/dependencies.ts';
import { prune } from '../../src/storage/prune.ts';
import type { Answer } from '../support/client.ts';
import type { TestDatabase } from '../support/database.ts';
import { cheapArgon2, startServer } from '../support/server.ts';
import {
  createLoadClient,
  familyOf,
  insist,
  introspect,
  Ledger,
  type LoadClient,
  login,
  PASSWORD,
  type Reply,
  request,
  revoke,
  type Target,
} from './load.ts';
import { ask, holdRow, startPostgres } from './support.ts';
import { printFigures } from './verify.ts';

t.setTimeout(120_000);

const LANES = 8;
const SECONDS = 12;
const BURSTS_PER_FAMILY = 5;
/** Beyond these the oldest goes, and which that is depends on who wins. */
const MAXIMUM_ACCESS_TOKENS = 16;

const seed = Number(process.env['RACE_SEED'] ?? Date.now() % 2 ** 31);

/** Numbers from 0 to 1 that a seed repeats (mulberry32). */
function createRandom(state: number): () => number {
  let a = state;
  return () => {
    a = (a + 0x6d2b79f5) | 0;
    let x = Math.imul(a ^ (a >>> 15), 1 | a);
    x = (x + Math.imul(x ^ (x >>> 7), 61 | x)) ^ x;
    return ((x ^ (x >>> 14)) >>> 0) / 2 ** 32;
  };
}

interface Scene {
  readonly client: LoadClient;
  readonly stranger: LoadClient;
  readonly targets: readonly [Target, Target];
  readonly admin: Dependencies;
  readonly database: TestDatabase;
  readonly ledger: Ledger;
  readonly wrongs: string[];
  readonly counts: Record<string, number>;
}

const postgres = await startPostgres(t);

async function setUp(t: Test): Promise<Scene> {
  const database = await postgres.createDatabase();
  const { url } = database;
  const client = await createLoadClient(database, []);
  const stranger = await createLoadClient(database, [], { clientId: 'stranger' });
  const settings = { argon2: cheapArgon2, isRateLimitOn: false, logLevel: 'silent' } as const;
  const one = await startServer(t, { ...settings, database });
  const other = await startServer(t, { ...settings, database });
  const config = { ...loadConfig({ DATABASE_URL: url }), ...settings };
  const admin = await createDependencies(config, { isMigrating: false, notice: () => {} });
  t.teardown(() => admin.close());
  return {
    client,
    stranger,
    targets: [() => one.url, () => other.url],
    admin,
    database,
    ledger: new Ledger(),
    wrongs: [],
    counts: {},
  };
}

/** Tries until it is done: an administrator whose connection ends asks again, too. */
async function administered(work: () => Promise<unknown>): Promise<boolean> {
  for (let attempt = 0; attempt < 50; attempt++) {
    try {
      await work();
      return true;
    } catch {
      await delay(20);
    }
  }
  return false;
}

/** One family, by what its client and its person know of it. */
class Life {
  /** By generation. */
  readonly refreshTokens: string[] = [];
  /** Unknown is one whose revocation was not answered. */
  readonly accessTokens = new Map<string, 'good' | 'revoked' | 'unknown'>();
  readonly scene: Scene;
  readonly random: () => number;
  readonly username: string;
  readonly label: string;
  constructor(scene: Scene, random: () => number, username: string, label: string) {
    this.scene = scene;
    this.random = random;
    this.username = username;
    this.label = label;
  }

  get current(): string {
    return this.refreshTokens.at(-1) as string;
  }
  wrong(what: string): void {
    this.scene.wrongs.push(`${this.label}: ${what}`);
  }
  count(what: string): void {
    this.scene.counts[what] = (this.scene.counts[what] ?? 0) + 1;
  }
  target(): Target {
    return this.scene.targets[this.random() < 0.5 ? 0 : 1] as Target;
  }
  soon = (): Promise<void> => delay(this.random() * 12);

  async refresh(token: string, scope?: string, client = this.scene.client): Promise<Reply> {
    const target = this.target();
    await this.soon();
    const parameters = {
      grant_type: 'refresh_token',
      refresh_token: token,
      ...(scope && { scope }),
    };
    const reply = await request(target, '/token', client, parameters);
    const meaning = this.scene.ledger.note(reply);
    this.count(`refresh ${meaning}`);
    if (meaning === 'granted') {
      const { access_token } = (reply as Answer).body;
      if (!this.accessTokens.has(access_token)) this.accessTokens.set(access_token, 'good');
    }
    return reply;
  }

  async isActive(token: string): Promise<boolean> {
    const { ledger, client } = this.scene;
    const { body } = await insist(ledger, () => introspect(this.target(), client, token));
    this.count('introspect');
    return body.active;
  }

  async live(): Promise<void> {
    const { scene, random, username } = this;
    const { ledger, client } = scene;
    const { status, body } = await insist(ledger, () => login(this.target(), client, username));
    this.count('login');
    if (status !== 200) return this.wrong(`login is ${status}`);
    this.refreshTokens.push(body.refresh_token);
    this.accessTokens.set(body.access_token, 'good');
    for (let burst = 0; burst < BURSTS_PER_FAMILY; burst++) {
      if (!(await this.burst(random() < 0.2))) return;
    }
  }

  /** Sends copies of a refresh with whatever else may meet it. Tells whether the family goes on. */
  async burst(isDeadly: boolean): Promise<boolean> {
    const { random, refreshTokens } = this;
    const presented = this.current;
    const copies = 1 + Math.floor(random() * 5);
    const narrow = random() < 0.2 ? 'read' : undefined;
    const work: Promise<unknown>[] = [];
    const granted: Answer[] = [];
    let verdicts = 0;
    for (let copy = 0; copy < copies; copy++) {
      const scope = narrow && random() < 0.5 ? narrow : undefined;
      work.push(
        this.refresh(presented, scope).then((reply) => {
          if (reply.status === 200) granted.push(reply as Answer);
          else if (reply.status === 400) verdicts++;
        }),
      );
    }
    if (random() < 0.3) {
      work.push(
        this.refresh(presented, undefined, this.scene.stranger).then(({ status }) => {
          if (status !== 400 && status !== 503) this.wrong(`stranger is answered ${status}`);
        }),
      );
    }
    const victims = [...this.accessTokens.keys()];
    if (random() < 0.5) {
      const victim = victims[Math.floor(random() * victims.length)] as string;
      const times = 1 + Math.floor(random() * 3);
      for (let time = 0; time < times; time++) work.push(this.revokeAccessToken(victim));
    }
    const killer = isDeadly ? this.kill() : undefined;
    const [killed] = await Promise.all([killer, ...work]);
    if (isDeadly) return this.afterDeath(killed as Killed, granted);
    if (verdicts > 0) this.wrong(`${verdicts} of ${copies} were refused`);
    // A client that got no answer asks again with what it has.
    const again = await insist(this.scene.ledger, () => this.refresh(presented));
    if (again.status !== 200) {
      this.wrong(`the retry is answered ${again.status}`);
      return false;
    }
    const successors = new Set([...granted, again].map(({ body }) => body.refresh_token));
    if (successors.size !== 1) this.wrong(`${successors.size} successors`);
    refreshTokens.push(again.body.refresh_token);
    await this.verifyAlive();
    return true;
  }

  async revokeAccessToken(token: string): Promise<void> {
    const target = this.target();
    await this.soon();
    const reply = await revoke(target, this.scene.client, token);
    this.count(`revoke access ${this.scene.ledger.note(reply)}`);
    if (reply.status === 200) {
      this.accessTokens.set(token, 'revoked');
      if (await this.isActive(token)) this.wrong('a revoked access token is active');
    } else if (this.accessTokens.get(token) === 'good') this.accessTokens.set(token, 'unknown');
  }

  async verifyAlive(): Promise<void> {
    if (!(await this.isActive(this.current))) this.wrong('the current token is not active');
    for (const spent of this.refreshTokens.slice(-3, -1)) {
      if (await this.isActive(spent)) this.wrong('a spent token is active');
    }
    if (this.accessTokens.size > MAXIMUM_ACCESS_TOKENS) return;
    for (const [token, state] of this.accessTokens) {
      if (state === 'unknown') continue;
      const isActive = await this.isActive(token);
      if (isActive !== (state === 'good')) this.wrong(`a ${state} access token is ${isActive}`);
    }
  }

  /** Ends the family in one of all ways. */
  async kill(): Promise<Killed> {
    const { random, username, refreshTokens, scene } = this;
    const { resourceOwners, sessions } = scene.admin;
    const { client, ledger } = scene;
    await this.soon();
    const kinds: Record<string, () => Promise<boolean>> = {
      revoked: async () => {
        const token = refreshTokens[Math.floor(random() * refreshTokens.length)] as string;
        return (await insist(ledger, () => revoke(this.target(), client, token))).status === 200;
      },
      replay: async () => {
        // Older than the one before the current one, so that it is a replay whoever wins.
        if (refreshTokens.length < 3) return kinds['revoked']?.() as Promise<boolean>;
        const old = refreshTokens[Math.floor(random() * (refreshTokens.length - 2))] as string;
        const { status } = await insist(ledger, () => this.refresh(old));
        return status === 400;
      },
      password_changed: () => administered(() => resourceOwners.setPassword(username, PASSWORD)),
      disabled: () => administered(() => resourceOwners.disable(username)),
      administrator: () => administered(() => sessions.revoke(familyOf(this.current))),
      all: () => administered(() => sessions.revokeAll(username)),
    };
    const names = Object.keys(kinds);
    const kind = names[Math.floor(random() * names.length)] as string;
    const isKilled = (await kinds[kind]?.()) ?? false;
    this.count(`kill ${kind}`);
    return { kind, isKilled };
  }

  async afterDeath({ kind, isKilled }: Killed, granted: readonly Answer[]): Promise<boolean> {
    if (!isKilled) {
      this.wrong(`${kind} did not work`);
      return false;
    }
    const successors = new Set(granted.map(({ body }) => body.refresh_token as string));
    if (successors.size > 1) this.wrong(`${successors.size} successors of a dying family`);
    for (const token of [...this.refreshTokens, ...successors, ...this.accessTokens.keys()]) {
      if (await this.isActive(token)) this.wrong(`${kind}: something lives on`);
    }
    for (const token of [this.current, ...successors]) {
      const { status } = await insist(this.scene.ledger, () => this.refresh(token));
      if (status !== 400) this.wrong(`${kind}: refreshed after death: ${status}`);
    }
    const rows = await ask<{ revocation_reason: string; events: number }>(
      this.scene.database,
      `select revocation_reason, (
         select count(*) from security_event e
         where e.family_id = f.id and e.kind = 'refresh_token_replay'
       )::int as events from token_family f where id = $1`,
      [familyOf(this.current)],
    );
    const [row] = rows;
    if (row !== undefined && row.events !== (row.revocation_reason === 'replay' ? 1 : 0)) {
      this.wrong(`${kind}: ${row.events} events for ${row.revocation_reason}`);
    }
    return false;
  }
}

interface Killed {
  readonly kind: string;
  readonly isKilled: boolean;
}

/** Troubles connections, statements and rows. */
async function chaos(
  { database, admin, counts }: Scene,
  random: () => number,
  isOver: () => boolean,
) {
  const note = (what: string) => {
    counts[what] = (counts[what] ?? 0) + 1;
  };
  const backends = `from pg_stat_activity where datname = current_database()
    and backend_type = 'client backend' and application_name <> 'inspect'`;
  while (!isOver()) {
    await delay(random() * 40);
    const what = random();
    if (what < 0.2) {
      note('chaos terminate');
      await ask(database, `select pg_terminate_backend(pid) ${backends} order by random() limit 1`);
    } else if (what < 0.4) {
      note('chaos cancel');
      await ask(database, `select pg_cancel_backend(pid) ${backends} and state = 'active'`);
    } else if (what < 0.6) {
      note('chaos prune');
      await prune(admin.database).catch(() => {});
    } else {
      const [row] = await ask<{ id: string }>(
        database,
        `select id from (
           select id from token_family where revoked_at is null order by started_at desc limit 8
         ) recent order by random() limit 1`,
      );
      if (row === undefined) continue;
      note('chaos hold');
      const release = await holdRow(database, row.id);
      await delay(random() * 120);
      await release();
    }
  }
}

t.test(`whoever wins, families keep their promises (RACE_SEED=${seed})`, async (t) => {
  const scene = await setUp(t);
  const { admin, wrongs, counts, ledger } = scene;
  const endsAt = performance.now() + SECONDS * 1000;
  const isOver = () => performance.now() > endsAt;
  const lane = async (index: number) => {
    for (let life = 0; !isOver() && wrongs.length < 20; life++) {
      const random = createRandom(seed + index * 1_000_003 + life * 7919);
      const username = `person-${index}-${life}`;
      if (!(await administered(() => admin.resourceOwners.create(username, PASSWORD)))) continue;
      await new Life(scene, random, username, `lane ${index} life ${life}`).live();
    }
  };
  await Promise.all([
    chaos(scene, createRandom(seed), isOver),
    ...Array.from({ length: LANES }, (_, index) => lane(index)),
  ]);
  t.strictSame(wrongs, [], 'every family is what its client was told');
  t.strictSame(ledger.violations, [], 'I5: trouble is 503 with Retry-After');
  printFigures(t, { seed, ...counts });
});
