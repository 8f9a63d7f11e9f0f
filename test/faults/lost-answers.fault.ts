/** Requests and answers that get lost between clients and servers, and requests that arrive twice. */
import { setTimeout as sleep } from 'node:timers/promises';
import t, { type Test } from 'tap';
import type { Answer } from '../support/client.ts';
import { shiftedFamily } from '../support/family-rows.ts';
import { invalidGrantBody } from '../support/fixtures.ts';
import {
  createLoadClient,
  type Holder,
  keepRefreshing,
  Ledger,
  meaningOf,
  newest,
  openFamilies,
  orphanedOnce,
  peopleNamed,
  refresh,
  revoke,
  targetsOf,
} from './load.ts';
import { type Fate, startLossyProxy } from './lossy-proxy.ts';
import { ask, startPostgres, startServerProcess } from './support.ts';
import {
  constantsOf,
  figuresOf,
  findUnexpected,
  printFigures,
  verifyHolders,
  verifyLedger,
  verifyLogs,
} from './verify.ts';

t.setTimeout(120_000);

const WINDOW_SECONDS = 60;
const FAMILIES = 16;
const STORM_SECONDS = 2;

const postgres = await startPostgres(t);
const database = await postgres.createDatabase();
const people = peopleNamed('person', 4);
const client = await createLoadClient(database, people, { retryWindowSeconds: WINDOW_SECONDS });
const servers = [
  await startServerProcess(t, database.url),
  await startServerProcess(t, database.url),
];
const targets = targetsOf(servers);
const [direct] = targets;

/** Lets time pass for one family, while the service lives on. */
const age = ({ familyId }: Holder, seconds: number) =>
  ask(
    database,
    `with passed as (select $2 * interval '1 second' as time)
     update token_family set ${shiftedFamily} from passed where id = $1`,
    [familyId, seconds],
  );

const replaysIn = async ({ familyId }: Holder): Promise<number> => {
  const events = await ask(
    database,
    `select from security_event where kind = 'refresh_token_replay' and family_id = $1`,
    [familyId],
  );
  return events.length;
};

/** Loses the answer to a refresh of three families, and presents their parents at once, later and too late. */
async function loseAnswers(t: Test, fate: Fate): Promise<void> {
  const proxy = await startLossyProxy(t, targets);
  const ledger = new Ledger();
  const holders = await openFamilies(ledger, direct, client, people, 3);
  const [prompt, slow, late] = holders as [Holder, Holder, Holder];
  proxy.fate = () => fate;
  for (const { refreshTokens } of holders) {
    const reply = await refresh(() => proxy.url, client, newest(refreshTokens));
    t.equal(meaningOf(reply), 'unanswered', 'the client has no answer');
  }
  await age(slow, WINDOW_SECONDS / 2);
  await age(late, WINDOW_SECONDS + 1);

  for (const holder of [prompt, slow]) {
    const [parent] = holder.refreshTokens as [string];
    const retries = [];
    for (const target of targets) retries.push((await refresh(target, client, parent)) as Answer);
    const [one, other] = retries as [Answer, Answer];
    t.equal(one.status, 200, 'I4: a retry inside the window is granted');
    t.equal(other.body.refresh_token, one.body.refresh_token, 'with one successor everywhere');
    t.equal(other.body.access_token, one.body.access_token);
    holder.refreshTokens.push(one.body.refresh_token);
    holder.accessTokens.push(one.body.access_token);
  }
  await verifyHolders(t, ledger, database, targets, [prompt, slow]);
  verifyLedger(t, ledger);

  const [parent] = late.refreshTokens as [string];
  const tooLate = (await refresh(direct, client, parent)) as Answer;
  t.match(tooLate, { status: 400, body: invalidGrantBody }, 'after the window it is a replay');
  t.equal(await replaysIn(late), 1, 'which somebody is told of');
  const tokens = [...late.refreshTokens, ...late.accessTokens];
  t.equal(
    await findUnexpected(ledger, targets, client, tokens, false),
    0,
    'I3: the family is dead',
  );
}

t.test('F04 I1, I3, I4, I6: an answer that is lost is given again inside its window', (t) =>
  loseAnswers(t, 'cut before the answer'),
);

t.test('F05 I1, I3, I4, I6: so is one that breaks off inside its body', (t) =>
  loseAnswers(t, 'cut in the answer'),
);

t.test('F06 I4, I11: a request that breaks off inside its body changes nothing', async (t) => {
  const proxy = await startLossyProxy(t, targets);
  const ledger = new Ledger();
  const holders = await openFamilies(ledger, direct, client, people, 4);
  proxy.fate = () => 'cut in the request';
  const cut = async ({ refreshTokens }: Holder) => {
    const token = newest(refreshTokens);
    for (const send of [refresh, revoke]) {
      const reply = await send(() => proxy.url, client, token);
      t.equal(meaningOf(reply), 'unanswered');
    }
  };
  for (const holder of holders) await cut(holder);
  // The token of a form whose end is missing could be taken for a shorter one, or for one that is whole.
  await sleep(300);
  const rows = await ask<{ generation: number; revoked_at: Date | null }>(
    database,
    'select generation, revoked_at from token_family where id = any ($1)',
    [holders.map(({ familyId }) => familyId)],
  );
  t.strictSame(rows, Array(4).fill({ generation: 0, revoked_at: null }), 'nothing is written');
  await verifyHolders(t, ledger, database, targets, holders);
  verifyLedger(t, ledger);
});

/** Holders that refresh through a proxy all the time, whatever becomes of their requests. */
async function refreshThrough(t: Test, fates: readonly Fate[]) {
  const proxy = await startLossyProxy(t, targets);
  const ledger = new Ledger();
  const holders = await openFamilies(ledger, direct, client, people, FAMILIES);
  const constants = await constantsOf(database, holders);
  proxy.fate = () => fates[Math.floor(Math.random() * fates.length)] as Fate;
  const endsAt = performance.now() + STORM_SECONDS * 1000;
  const isOver = () => performance.now() > endsAt;
  await keepRefreshing(ledger, database, holders, () => proxy.url, isOver);
  await verifyHolders(t, ledger, database, targets, holders);
  verifyLedger(t, ledger);
  t.strictSame(await constantsOf(database, holders), constants, 'I12: nothing else has changed');
  verifyLogs(t, servers.map(({ output }) => output()).join('\n'));
  printFigures(t, { ...Object.fromEntries(proxy.counts), ...figuresOf(ledger, holders) });
  return { proxy, ledger, holders };
}

t.test('F07 I1, I4, I6: a request that arrives twice has one outcome', async (t) => {
  const { proxy, ledger } = await refreshThrough(t, ['sent twice']);
  t.ok(proxy.twins.length > FAMILIES);
  const tokensIn = (body: string) => {
    const { access_token, refresh_token } = JSON.parse(body);
    return { access_token, refresh_token };
  };
  const different = proxy.twins.filter(
    ([one, other]) => JSON.stringify(tokensIn(one)) !== JSON.stringify(tokensIn(other)),
  );
  t.equal(different.length, 0, 'both answers carry the same tokens');
  t.equal(ledger.counts.unanswered, 0);
});

t.test('holders go on through every kind of loss at once', async (t) => {
  const { proxy, holders } = await refreshThrough(t, [
    'answered',
    'cut in the request',
    'cut before the answer',
    'cut in the answer',
    'sent twice',
  ]);
  t.equal(proxy.counts.size, 5);
  t.ok(orphanedOnce(holders).length > 0, 'losses did leave clients with only the parent');
});
