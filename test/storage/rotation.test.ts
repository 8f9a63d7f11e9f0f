/**
 * A rotation looks for its family where the family was read, and whoever writes a row moves it. It is done
 * all the same unless something that it depends on has changed, and no other row is ever touched.
 */
import t from 'tap';
import type { Client } from '../../src/oauth/client.ts';
import {
  digest,
  generateSecret,
  type PresentedRefreshToken,
  parseOpaqueToken,
} from '../../src/oauth/opaque-token.ts';
import type { Rotation } from '../../src/oauth/ports.ts';
import { createCast, login } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t);
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

interface Stored {
  place: string;
  current_digest: Buffer;
  generation: number;
}

async function stored({ familyId }: Rotation): Promise<Stored> {
  const { rows } = await server.inspect.query<Stored>(
    'select ctid as place, current_digest, generation from token_family where id = $1',
    [familyId],
  );
  return rows[0] as Stored;
}

const writeOtherwise = ({ familyId }: Rotation) =>
  server.inspect.query(`update token_family set device_label = 'laptop' where id = $1`, [familyId]);

t.test('where it was read', async (t) => {
  const rotation = await decideRotation();
  t.match(await stored(rotation), { place: rotation.place, generation: 0 });
  t.match(await tokens.rotate(rotation), { outcome: 'issued' });
  t.match(await stored(rotation), { current_digest: rotation.successorDigest, generation: 1 });
});

t.test('a family that was written since it was read, and not rotated', async (t) => {
  const rotation = await decideRotation();
  await writeOtherwise(rotation);
  t.not((await stored(rotation)).place, rotation.place, 'its row has moved');
  t.match(await tokens.rotate(rotation), { outcome: 'issued' });
  t.match(await stored(rotation), { current_digest: rotation.successorDigest, generation: 1 });
});

t.test('several of them in one statement, with one that has not moved', async (t) => {
  const rotations = await Promise.all(Array.from({ length: 5 }, decideRotation));
  await Promise.all(rotations.slice(1).map(writeOtherwise));
  for (const outcome of await Promise.all(rotations.map(tokens.rotate))) {
    t.match(outcome, { outcome: 'issued' });
  }
  for (const rotation of rotations) t.match(await stored(rotation), { generation: 1 });
});

t.test('a family that somebody holds and then writes', async (t) => {
  const rotation = await decideRotation();
  await server.inspect.query('begin');
  await writeOtherwise(rotation);
  const rotated = tokens.rotate(rotation);
  await server.inspect.query('select pg_sleep(0.2)');
  await server.inspect.query('commit');
  t.match(await rotated, { outcome: 'issued' });
  t.match(await stored(rotation), { current_digest: rotation.successorDigest, generation: 1 });
});

t.test('a family that was rotated since it was read', async (t) => {
  const rotation = await decideRotation();
  const second = { ...rotation, successorDigest: digest(generateSecret()) };
  t.match(await tokens.rotate(rotation), { outcome: 'issued' });
  t.strictSame(await tokens.rotate(second), { outcome: 'lost' });
  t.strictSame(
    await tokens.rotate({ ...second, place: (await stored(rotation)).place }),
    { outcome: 'lost' },
    'nor where it is now',
  );
  t.match(await stored(rotation), { current_digest: rotation.successorDigest, generation: 1 });
});

t.test('a place where another family is by now', async (t) => {
  const [rotation, other] = [await decideRotation(), await decideRotation()];
  t.match(await tokens.rotate({ ...rotation, place: other.place }), { outcome: 'issued' });
  t.match(await stored(rotation), { current_digest: rotation.successorDigest, generation: 1 });
  t.match(await stored(other), { place: other.place, generation: 0 }, 'which is left alone');
});

t.test('a place that no page has, and a family that is gone', async (t) => {
  const rotation = await decideRotation();
  const nowhere = { ...rotation, place: '(4294967294,1)' };
  t.match(await tokens.rotate(nowhere), { outcome: 'issued' });
  const gone = await decideRotation();
  await server.inspect.query('delete from token_family where id = $1', [gone.familyId]);
  t.strictSame(await tokens.rotate(gone), { outcome: 'lost' });
});
