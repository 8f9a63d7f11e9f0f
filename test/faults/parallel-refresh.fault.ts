/** RFT-07 and RFT-08: one refresh token presented by many at once, over two server processes. */
import t, { type Test } from 'tap';
import type { Answer } from '../support/client.ts';
import { invalidGrantBody } from '../support/fixtures.ts';
import {
  createLoadClient,
  familyOf,
  introspect,
  type LoadClient,
  login,
  meaningOf,
  refresh,
  type Target,
} from './load.ts';
import { ask, startPostgres, startServerProcess } from './support.ts';
import { printFigures } from './verify.ts';

t.setTimeout(120_000);

const PARALLEL = 50;
const ROUNDS = 10;

const postgres = await startPostgres(t);

async function setUp(t: Test, retryWindowSeconds: number) {
  const database = await postgres.createDatabase();
  const client = await createLoadClient(database, ['alice'], { retryWindowSeconds });
  const servers = [
    await startServerProcess(t, database.url),
    await startServerProcess(t, database.url),
  ];
  const target =
    (index: number): Target =>
    () =>
      servers[index % 2]?.url;
  return { database, client, target, servers };
}

/** Presents one token many times at once, to both servers in turn. */
const presentToAll = (
  target: (index: number) => Target,
  client: LoadClient,
  token: string,
): Promise<Answer[]> =>
  Promise.all(
    Array.from(
      { length: PARALLEL },
      (_, index) => refresh(target(index), client, token) as Promise<Answer>,
    ),
  );

const isActive = async (target: Target, client: LoadClient, token: string): Promise<boolean> =>
  ((await introspect(target, client, token)) as Answer).body.active;

t.test('50 parallel refreshes of one token on two processes get one successor', async (t) => {
  const { database, client, target } = await setUp(t, 60);
  const first = (await login(target(0), client, 'alice')) as Answer;
  let presented: string = first.body.refresh_token;
  for (let round = 0; round < ROUNDS; round++) {
    const answers = await presentToAll(target, client, presented);
    const statuses = new Set(answers.map(({ status }) => status));
    t.strictSame([...statuses], [200], 'everybody is answered 200');
    const bodies = new Set(
      answers.map(({ body: { expires_in, ...same } }) => JSON.stringify(same)),
    );
    t.equal(bodies.size, 1, 'with the same access token, refresh token and scope');
    const [row] = await ask<{ generation: number; access_tokens: number }>(
      database,
      `select generation, cardinality(access_tokens) as access_tokens
       from token_family where id = $1`,
      [familyOf(presented)],
    );
    t.match(row, { generation: round + 1, access_tokens: round + 2 }, 'in one step');
    const { access_token, refresh_token } = (answers[0] as Answer).body;
    t.ok(await isActive(target(round), client, access_token), 'the access token is active');
    t.ok(await isActive(target(round), client, refresh_token), 'the refresh token is active');
    presented = refresh_token;
  }
  printFigures(t, {
    'refreshes in parallel': PARALLEL,
    rounds: ROUNDS,
    'successors in each round': 1,
  });
});

t.test('with window 0 one of 50 is granted and the rest ends the family', async (t) => {
  const { client, target, servers } = await setUp(t, 0);
  let replays = 0;
  for (let round = 0; round < ROUNDS; round++) {
    const first = (await login(target(round), client, 'alice')) as Answer;
    const answers = await presentToAll(target, client, first.body.refresh_token);
    const winners = answers.filter(({ status }) => status === 200);
    const losers = answers.filter(({ status }) => status === 400);
    t.equal(winners.length, 1, 'exactly one 200');
    t.equal(losers.length, PARALLEL - 1, 'and 400 for everybody else');
    t.ok(losers.every((loser) => meaningOf(loser) === 'verdict'));
    t.strictSame(losers[0]?.body, invalidGrantBody);
    replays += losers.length;
    const { access_token, refresh_token } = (winners[0] as Answer).body;
    for (const token of [access_token, refresh_token, first.body.access_token]) {
      t.notOk(await isActive(target(0), client, token), 'the replay has ended the family');
      t.notOk(await isActive(target(1), client, token), 'on both servers');
    }
  }
  t.notOk(servers.some((server) => server.hasEnded()));
  printFigures(t, {
    'refreshes in parallel': PARALLEL,
    rounds: ROUNDS,
    granted: ROUNDS,
    replays,
  });
});
