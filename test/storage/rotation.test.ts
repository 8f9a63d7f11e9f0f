/**
 * A rotation looks for its family where the family was read, and whoever writes a row moves it. It is done
 * all the same unless something that it depends on has changed, and no other row is ever touched.
 */
import t, { type Test } from 'tap';
import type { Client } from '../../src/oauth/client.ts';
import {
  digest,
  generateSecret,
  type PresentedRefreshToken,
  parseOpaqueToken,
} from '../../src/oauth/opaque-token.ts';
import type { Rotation } from '../../src/oauth/ports.ts';
import { createCast, login } from '../support/fixtures.ts';
import { seedFamilies } from '../support/seed.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t, { isRateLimitOn: false });
const { p1 } = await createCast(server);
const { tokens } = server.dependencies;

/** The rotation of a new family, as decided on what was read just now. */
async function decideRotation(): Promise<Rotation> {
  const { body } = await login(server, p1);
  const presented = parseOpaqueToken(body.refresh_token) as PresentedRefreshToken;
  const { client, family } = await tokens.lookUp({ clientId: p1.id, token: presented });
  return {
    familyId: presented.familyId,
    place: family?.lineage?.place as string,
    client: client as Client,
    presentedDigest: presented.secretDigest,
    successorDigest: digest(generateSecret()),
    successorSalt: generateSecret(),
    accessToken: { digest: digest(generateSecret()), scope: new Set(['read']) },
  };
}

const decideRotations = (count: number) =>
  Promise.all(Array.from({ length: count }, decideRotation));

interface Stored {
  place: string;
  current_digest: Buffer;
  generation: number;
  window_seconds: number | null;
}

async function stored({ familyId }: Rotation): Promise<Stored> {
  const { rows } = await server.inspect.query<Stored>(
    `select ctid as place, current_digest, generation,
       extract(epoch from retry_until - rotated_at)::float8 as window_seconds
     from token_family where id = $1`,
    [familyId],
  );
  return rows[0] as Stored;
}

const change = ({ familyId }: Rotation, assignment: string) =>
  server.inspect.query(`update token_family set ${assignment} where id = $1`, [familyId]);

const writeOtherwise = (rotation: Rotation) => change(rotation, `device_label = 'laptop'`);

/** Holds the rows of families while something is tried. */
async function whileHeld<T>(families: readonly Rotation[], work: () => Promise<T>): Promise<T> {
  await server.inspect.query('begin');
  try {
    await server.inspect.query('select from token_family where id = any($1) for update', [
      families.map(({ familyId }) => familyId),
    ]);
    return await work();
  } finally {
    await server.inspect.query('commit');
  }
}

async function isRotatedBy(t: Test, rotation: Rotation): Promise<void> {
  t.match(await stored(rotation), {
    current_digest: rotation.successorDigest,
    generation: 1,
    window_seconds: rotation.client.lifetimes.retryWindowSeconds,
  });
}

async function rotateEverything(t: Test): Promise<void> {
  await t.test('where it was read', async (t) => {
    const rotation = await decideRotation();
    t.match(await stored(rotation), { place: rotation.place, generation: 0 });
    t.match(await tokens.rotate(rotation), { outcome: 'issued' });
    await isRotatedBy(t, rotation);
  });

  await t.test('written since it was read, and not rotated', async (t) => {
    const rotation = await decideRotation();
    await writeOtherwise(rotation);
    t.not((await stored(rotation)).place, rotation.place, 'its row has moved');
    t.match(await tokens.rotate(rotation), { outcome: 'issued' });
    await isRotatedBy(t, rotation);
  });

  await t.test('several of them in one statement, with one that has not moved', async (t) => {
    const rotations = await decideRotations(8);
    for (const moved of rotations.slice(1)) await writeOtherwise(moved);
    for (const outcome of await Promise.all(rotations.map(tokens.rotate))) {
      t.match(outcome, { outcome: 'issued' });
    }
    for (const rotation of rotations) await isRotatedBy(t, rotation);
  });

  await t.test('moved, while as many rows are held as may be waited for', async (t) => {
    const held = await decideRotations(4);
    const moved = await decideRotation();
    await writeOtherwise(moved);
    const waiting = await whileHeld(held, async () => {
      const rotations = held.map(tokens.rotate);
      t.match(await tokens.rotate(moved), { outcome: 'issued' }, 'waits for nobody');
      return { rotations };
    });
    for (const outcome of await Promise.all(waiting.rotations)) {
      t.match(outcome, { outcome: 'issued' });
    }
    for (const rotation of [moved, ...held]) await isRotatedBy(t, rotation);
  });

  await t.test('held by somebody who then writes it', async (t) => {
    const rotation = await decideRotation();
    const { rotated } = await whileHeld([rotation], async () => {
      await writeOtherwise(rotation);
      const rotated = tokens.rotate(rotation);
      await server.inspect.query('select pg_sleep(0.2)');
      return { rotated };
    });
    t.match(await rotated, { outcome: 'issued' });
    await isRotatedBy(t, rotation);
  });

  await t.test('rotated or revoked since it was read', async (t) => {
    const rotation = await decideRotation();
    const second = { ...rotation, successorDigest: digest(generateSecret()) };
    t.match(await tokens.rotate(rotation), { outcome: 'issued' });
    const lost = { outcome: 'lost' };
    t.strictSame(await tokens.rotate(second), lost);
    const place = (await stored(rotation)).place;
    t.strictSame(await tokens.rotate({ ...second, place }), lost, 'nor where it is now');
    const revoked = await decideRotation();
    await change(revoked, `revoked_at = now(), revocation_reason = 'revoked'`);
    await whileHeld([rotation, revoked], async () => {
      t.strictSame(await tokens.rotate(second), lost, 'told at once, though the row is held');
      t.strictSame(await tokens.rotate(revoked), lost, 'told at once, though the row is held');
    });
    await isRotatedBy(t, rotation);
    t.match(await stored(revoked), { generation: 0 });
  });

  await t.test('a place where another family is by now', async (t) => {
    const [rotation, other] = [await decideRotation(), await decideRotation()];
    t.match(await tokens.rotate({ ...rotation, place: other.place }), { outcome: 'issued' });
    await isRotatedBy(t, rotation);
    t.match(await stored(other), { place: other.place, generation: 0 }, 'which is left alone');
  });

  await t.test('a place that no page has, and a family that is gone', async (t) => {
    const rotation = await decideRotation();
    const nowhere = { ...rotation, place: '(4294967294,1)' };
    t.match(await tokens.rotate(nowhere), { outcome: 'issued' });
    await isRotatedBy(t, rotation);
    const gone = await decideRotation();
    await server.inspect.query('delete from token_family where id = $1', [gone.familyId]);
    t.strictSame(await tokens.rotate(gone), { outcome: 'lost' });
  });
}

t.test('in a small table, where the place is compared', rotateEverything);

t.test('in a large table, where the place is looked up', async (t) => {
  await seedFamilies(server, 1, 3000);
  await server.inspect.query('analyze');
  await rotateEverything(t);
});

/** The connections that wait for a row. The server is that of other tests, too. */
const waiting = async () => {
  const { rows } = await server.inspect.query<{ pid: number }>(
    `select pid from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
  );
  return rows;
};

t.test('access tokens for families that are held wait without occupying the pool', async (t) => {
  for (const [families, atMost] of [
    [30, 4],
    [1, 1],
  ] as const) {
    const held = await decideRotations(families);
    const free = await decideRotation();
    const { issued } = await whileHeld(held, async () => {
      const issued = Promise.all(
        Array.from({ length: 30 }, (_, n) => {
          const { presentedDigest, ...family } = held[n % families] as Rotation;
          return tokens.issueAdditionalAccessToken({ ...family, currentDigest: presentedDigest });
        }),
      );
      t.match(await tokens.rotate(free), { outcome: 'issued' }, 'waits for nobody');
      while ((await waiting()).length === 0) await server.inspect.query('select pg_sleep(0.01)');
      await server.inspect.query('select pg_sleep(0.1)');
      t.ok((await waiting()).length <= atMost, `${families} that are held`);
      return { issued };
    });
    for (const { outcome } of await issued) t.match(outcome, /^(issued|lost)$/);
  }
});

t.test('what fails in the line for one family is not the trouble of the next', async (t) => {
  const held = await decideRotations(4);
  const last = await decideRotation();
  const { failed, next } = await whileHeld([...held, last], async () => {
    const failed = Promise.allSettled(held.map(tokens.rotate));
    while ((await waiting()).length < held.length)
      await server.inspect.query('select pg_sleep(0.01)');
    const next = Promise.allSettled([tokens.rotate(last)]);
    await server.inspect.query('select pg_sleep(0.2)');
    const [first] = await waiting();
    await server.inspect.query('select pg_terminate_backend($1)', [first?.pid]);
    await server.inspect.query('select pg_sleep(0.2)');
    return { failed, next };
  });
  t.equal((await failed).filter(({ status }) => status === 'rejected').length, 1);
  t.match(await next, [{ status: 'fulfilled' }]);
});

t.test('a rotation keeps every access token that lives, up to the limit', async (t) => {
  const patterns = Array.from({ length: 5 }, (_, length) =>
    Array.from({ length: 2 ** length }, (_, bits) =>
      Array.from({ length }, (_, place) => (bits >> place) % 2 === 1),
    ),
  ).flat();
  for (const length of [14, 15, 16]) {
    patterns.push(
      Array.from({ length }, () => true),
      Array.from({ length }, (_, place) => place > 0),
      Array.from({ length }, (_, place) => place < length - 1),
    );
  }
  for (const lives of patterns) {
    const rotation = await decideRotation();
    // The newest first, as they are issued.
    await server.inspect.query(
      `update token_family set access_tokens = array(
         select row(
           sha256(convert_to(n::text, 'utf8')), 'read', now() - n * interval '1 second',
           now() + case when lives then 1 else -1 end * interval '1 hour'
         )::issued_access_token
         from unnest($2::bool[]) with ordinality as l(lives, n) order by n
       ) where id = $1`,
      [rotation.familyId, lives],
    );
    await tokens.rotate(rotation);
    const { rows } = await server.inspect.query<{ digest: Buffer; lives: boolean }>(
      `select a.digest, a.expires_at > now() as lives
       from token_family f, unnest(f.access_tokens) with ordinality as a(digest, scope, issued_at, expires_at, n)
       where f.id = $1 order by a.n`,
      [rotation.familyId],
    );
    const name = lives.map(Number).join('') || 'none';
    t.same(rows[0]?.digest, rotation.accessToken.digest, `${name}: the new one in front`);
    const numbers = lives.flatMap((isAlive, place) => (isAlive ? [place + 1] : []));
    t.same(
      rows.slice(1).flatMap(({ digest, lives }) => (lives ? [digest] : [])),
      numbers.slice(0, 15).map((number) => digest(String(number))),
      `${name}: those that live, in order`,
    );
    if (lives.at(-1) === false)
      t.ok(
        rows.every(({ lives }) => lives),
        `${name}: no other`,
      );
    t.ok(rows.length <= 16, `${name}: ${rows.length} at most`);
  }
});
