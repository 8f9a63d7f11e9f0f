/**
 * Does time tell what an answer hides? `npm run check:timing`
 *
 * Samples two classes of requests in turns, and reports their medians and how well the best threshold
 * tells them apart (50 % is a coin). Not part of CI, because a busy machine makes a liar of it.
 */
import t from 'tap';
import type { Answer } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import {
  ALICE_PASSWORD,
  type Caller,
  createCast,
  introspect,
  login,
  refresh,
  revoke,
} from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const SAMPLES = Number(process.env['SAMPLES'] ?? 300);
const WARM_UP = 30;
/** A threshold fitted to a few hundred samples of noise scores a little above a coin. */
const MAXIMUM_SCORE = 0.6;

const database = await createTestDatabase(t);
const server = await startServer(t, {
  database,
  isRateLimitOn: false,
  logLevel: 'silent',
  argon2: { memoryKibibytes: 19_456, iterations: 2, parallelism: 1 },
});
const cast = await createCast(server);
const { clients, resourceOwners } = server.dependencies;
await resourceOwners.create('passwordless', undefined);
const any = await clients.create({
  clientId: 'any',
  clientType: 'confidential',
  introspectionRight: 'any',
});
const reader: Caller = { id: 'any', secret: any.clientSecret as string };

interface Comparison {
  readonly medians: readonly [number, number];
  readonly score: number;
}

type Request = () => Promise<Answer>;

async function milliseconds(request: Request): Promise<number> {
  const start = process.hrtime.bigint();
  await request();
  return Number(process.hrtime.bigint() - start) / 1e6;
}

async function compare(one: Request, other: Request): Promise<Comparison> {
  const samples: [number[], number[]] = [[], []];
  for (let round = 0; round < WARM_UP + SAMPLES; round++) {
    // The order changes, because the second of two requests can profit from the first.
    const order = round % 2 === 0 ? [0, 1] : [1, 0];
    for (const index of order) {
      const took = await milliseconds(index === 0 ? one : other);
      if (round >= WARM_UP) samples[index as 0 | 1].push(took);
    }
  }
  return { medians: [median(samples[0]), median(samples[1])], score: bestThreshold(...samples) };
}

const median = (values: readonly number[]): number =>
  [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] as number;

/** The share of samples that the best single threshold puts into the right class. */
function bestThreshold(one: readonly number[], other: readonly number[]): number {
  const all = [...one.map((value) => [value, 1]), ...other.map((value) => [value, -1])] as [
    number,
    number,
  ][];
  all.sort(([a], [b]) => a - b);
  let balance = 0;
  let best = 0;
  for (const [, side] of all) {
    balance += side;
    best = Math.max(best, Math.abs(balance));
  }
  return 0.5 + best / (2 * one.length);
}

interface Limit {
  /** How far apart the medians may be, as a share of the larger one. */
  readonly share: number;
  /** Or in milliseconds, where requests are so short that a share says nothing. */
  readonly milliseconds?: number;
}

async function check(title: string, limit: Limit, one: Request, other: Request): Promise<void> {
  await t.test(title, async (t) => {
    const { medians, score } = await compare(one, other);
    const difference = Math.abs(medians[0] - medians[1]);
    const share = difference / Math.max(...medians);
    t.comment(
      `medians ${medians.map((value) => value.toFixed(2)).join(' and ')} ms, ` +
        `${(share * 100).toFixed(1)} % apart; the best threshold is right in ${(score * 100).toFixed(1)} %`,
    );
    t.ok(share < limit.share || difference < (limit.milliseconds ?? 0), 'medians');
    t.ok(score < MAXIMUM_SCORE, 'threshold');
  });
}

const { c1, c2 } = cast;
const hashed = { share: 0.05 };
const short = { share: 0.1, milliseconds: 0.3 };
const wrong = { password: 'a wrong password' };

// Arranged before the first check: between two tests the runner could take the file for finished.
const live = (await login(server, c1)).body;
const revoked = (await login(server, c1)).body;
await revoke(server, c1, revoked.access_token);
const pruned = (await login(server, c1)).body;
const familyIdHex = Buffer.from(pruned.access_token.slice(4), 'base64url').toString('hex', 0, 16);
await database.inspect.query('delete from token_family where id = $1', [familyIdHex]);
await check(
  'TIM-01 ASVS 6.3.8: wrong password, unknown person',
  hashed,
  () => login(server, c1, wrong),
  () => login(server, c1, { ...wrong, username: 'nobody' }),
);
await check(
  'TIM-02 ASVS 6.3.8: wrong password, disabled person',
  hashed,
  () => login(server, c1, wrong),
  () => login(server, c1, { username: 'dora', password: ALICE_PASSWORD }),
);
await check(
  'TIM-02 ASVS 6.3.8: wrong password, person without a password',
  hashed,
  () => login(server, c1, wrong),
  () => login(server, c1, { ...wrong, username: 'passwordless' }),
);
await check(
  'TIM-03 ASVS 11.2.4: wrong secret, unknown client',
  short,
  () => login(server, { id: c1.id, secret: 'wrong' }),
  () => login(server, { id: 'nobody', secret: 'wrong' }),
);

await check(
  'TIM-04 RFC 7662 §4: introspection of an unknown and a revoked token',
  short,
  () => introspect(server, reader, pruned.access_token),
  () => introspect(server, reader, revoked.access_token),
);
await check(
  'TIM-04 RFC 7662 §4: introspection of an unknown token and one of another audience',
  short,
  () => introspect(server, cast.rs2, pruned.access_token),
  () => introspect(server, cast.rs2, live.access_token),
);
await check(
  'TIM-05 RFC 6749 §10.4: refresh with an unknown token and with another client’s',
  short,
  () => refresh(server, c2, pruned.refresh_token),
  () => refresh(server, c2, live.refresh_token),
);
