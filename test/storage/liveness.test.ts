/**
 * *Alive* is defined twice: by `causeOfDeath`, which decides on what was read, and by `familyIsAlive`
 * in the hot statements, which guards that it still holds when it is written. They must agree.
 */
import t from 'tap';
import type { Client } from '../../src/oauth/client.ts';
import {
  digest,
  generateSecret,
  type PresentedRefreshToken,
  parseOpaqueToken,
} from '../../src/oauth/opaque-token.ts';
import { causeOfDeath, type TokenFamily } from '../../src/oauth/token-family.ts';
import { post } from '../support/client.ts';
import { ALICE_PASSWORD } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t);
const { clients, resourceOwners, sessions, tokens } = server.dependencies;

interface Held {
  /** As read while everything was alive: the writes must not believe it. */
  readonly client: Client;
  readonly presented: PresentedRefreshToken;
  readonly username: string;
}

let names = 0;

/** Logs a new person in through a new client, so that whatever ends this family ends no other one. */
async function holdFamily(): Promise<Held> {
  names += 1;
  const clientId = `client-${names}`;
  const username = `person-${names}`;
  await clients.create({
    clientId,
    clientType: 'public',
    grantTypes: ['password', 'refresh_token'],
    scope: ['read'],
  });
  await resourceOwners.create(username, ALICE_PASSWORD);
  const parameters = { grant_type: 'password', client_id: clientId, username };
  const answer = await post(`${server.url}/token`, { ...parameters, password: ALICE_PASSWORD });
  const presented = parseOpaqueToken(answer.body.refresh_token) as PresentedRefreshToken;
  const { client } = await tokens.lookUp({ clientId, token: presented });
  return { client: client as Client, presented, username };
}

const read = ({ client, presented }: Held) =>
  tokens.lookUp({ clientId: client.clientId, token: presented });

const issueAdditional = ({ client, presented }: Held) =>
  tokens.issueAdditionalAccessToken({
    familyId: presented.familyId,
    client,
    currentDigest: presented.secretDigest,
    accessToken: { digest: digest(generateSecret()), scope: new Set(['read']) },
  });

/** Rotates where the row is now, so that what is refused is the family and not an old place. */
const rotate = async ({ client, presented }: Held) =>
  tokens.rotate({
    familyId: presented.familyId,
    place: await placeOf(presented),
    client,
    presentedDigest: presented.secretDigest,
    successorDigest: digest(generateSecret()),
    successorSalt: generateSecret(),
    accessToken: { digest: digest(generateSecret()), scope: new Set(['read']) },
  });

async function placeOf({ familyId }: PresentedRefreshToken): Promise<string> {
  const query = 'select ctid as place from token_family where id = $1';
  const { rows } = await server.inspect.query(query, [familyId]);
  return rows[0]?.place ?? '(0,1)';
}

/** Changes the family's own row. */
const change = ({ presented }: Held, assignment: string) =>
  server.inspect.query(`update token_family set ${assignment} where id = $1`, [presented.familyId]);

/** Moves a cut-off to where the family began, give or take. */
const cutOff = (table: 'client' | 'server_state', { presented }: Held, shift = '0 s') =>
  server.inspect.query(
    `update ${table} set sessions_valid_after = f.started_at + $2::interval
     from token_family f
     where f.id = $1 and ${table === 'client' ? 'key = f.client_key' : 'server_state.id = 1'}`,
    [presented.familyId, shift],
  );

/** What `causeOfDeath` says; a person that is deleted leaves no family to ask about. */
const deathOf = (family: TokenFamily | undefined, now: Date): string | undefined =>
  family === undefined ? 'no such family' : causeOfDeath(family, now);

const deaths: Readonly<Record<string, (held: Held) => Promise<unknown>>> = {
  'revoked by its client': ({ presented }) => tokens.revokeFamily(presented.familyId, 'revoked'),
  'revoked by an administrator': ({ presented }) => sessions.revoke(presented.familyId),
  expired: (held) => change(held, `expires_at = date_trunc('second', clock_timestamp())`),
  "older than its client's cut-off": ({ client }) => clients.endSessions(client.clientId),
  "begun at the instant of its client's cut-off": (held) => cutOff('client', held),
  "begun at the instant of the server's cut-off": (held) => cutOff('server_state', held),
  "older than the server's cut-off": () => sessions.revokeEverything(),
  'of a disabled client': ({ client }) => clients.disable(client.clientId),
  'of a deleted client': ({ client }) => clients.delete(client.clientId),
  'of a disabled person': ({ username }) => resourceOwners.disable(username),
  // The row alone, without the revocation that disabling somebody brings along.
  'of a person who is disabled, and not revoked': ({ username }) =>
    server.inspect.query(
      'update resource_owner set disabled_at = clock_timestamp() where username = $1',
      [username],
    ),
  'of a person who changed the password': ({ username }) =>
    resourceOwners.setPassword(username, `${ALICE_PASSWORD}, and now another`),
  'of a deleted person': ({ username }) => resourceOwners.delete(username),
};

t.test('RFC 9700 §4.14.2: nothing is issued in a family that died since it was read', async (t) => {
  for (const [name, end] of Object.entries(deaths)) {
    const held = await holdFamily();
    t.strictSame(deathOf((await read(held)).family, (await read(held)).now), undefined, name);
    await end(held);
    const { family, now } = await read(held);
    t.type(deathOf(family, now), 'string', `${name}: read as dead`);
    t.strictSame(await rotate(held), { outcome: 'lost' }, `${name}: not rotated`);
    t.strictSame(await issueAdditional(held), { outcome: 'lost' }, `${name}: nothing added`);
    const { rowCount } = await server.inspect.query(
      'select from token_family where id = $1 and cardinality(access_tokens) > 1',
      [held.presented.familyId],
    );
    t.equal(rowCount, 0, `${name}: no access token but the first`);
    await server.inspect.query('update server_state set sessions_valid_after = null');
  }
});

const survivals: Readonly<Record<string, (held: Held) => Promise<unknown>>> = {
  'left alone': async () => {},
  'younger than its client’s cut-off': (held) => cutOff('client', held, '-2 ms'),
  'younger than the server’s cut-off': (held) => cutOff('server_state', held, '-2 ms'),
  'about to expire': (held) =>
    change(held, `expires_at = date_trunc('second', clock_timestamp()) + interval '60 s'`),
  'of a client that was disabled and is enabled again': async ({ client }) => {
    await clients.disable(client.clientId);
    await clients.enable(client.clientId);
  },
};

t.test('RFC 9700 §4.14.2: a family that reads as alive is one that can be written', async (t) => {
  for (const [name, arrange] of Object.entries(survivals)) {
    const held = await holdFamily();
    await arrange(held);
    const { family, now } = await read(held);
    t.equal(deathOf(family, now), undefined, `${name}: read as alive`);
    t.match(await issueAdditional(held), { outcome: 'issued' }, `${name}: an access token added`);
    t.match(await rotate(held), { outcome: 'issued' }, `${name}: rotated`);
    t.strictSame(await rotate(held), { outcome: 'lost' }, `${name}: only once`);
    t.strictSame(await issueAdditional(held), { outcome: 'lost' }, `${name}: no longer current`);
    await server.inspect.query('update server_state set sessions_valid_after = null');
  }
});

t.test('a family that is over is no session that an administrator is shown', async (t) => {
  const isListed = async ({ username, presented }: Held) =>
    (await sessions.list(username)).some(({ id }) => id === presented.familyId);
  const comesBack = 'of a disabled client';
  for (const [name, end] of Object.entries(deaths)) {
    // Without a person there is nobody to list.
    if (name === 'of a deleted person') continue;
    const held = await holdFamily();
    t.ok(await isListed(held));
    await end(held);
    t.equal(await isListed(held), name === comesBack, name);
    await server.inspect.query('update server_state set sessions_valid_after = null');
  }
  for (const [name, arrange] of Object.entries(survivals)) {
    const held = await holdFamily();
    await arrange(held);
    t.ok(await isListed(held), name);
    await server.inspect.query('update server_state set sessions_valid_after = null');
  }
});

t.test('RFC 9700 §4.14.2: an idle refresh token is not rotated, whatever was read', async (t) => {
  const held = await holdFamily();
  await change(held, `idle_expires_at = date_trunc('second', clock_timestamp())`);
  const { family, now } = await read(held);
  t.equal(deathOf(family, now), undefined, 'its access tokens live on');
  t.strictSame(await rotate(held), { outcome: 'lost' });
});
