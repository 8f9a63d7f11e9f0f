/**
 * Random lives of token families, RFC 9700 §4.14.2: every answer, and after every step the activity of
 * every token ever seen, is what the model in `family-model.ts` says.
 *
 * A failure prints its seed and path, and the shortest life that was found to fail.
 */

import fc from 'fast-check';
import t from 'tap';
import { type Answer, basic, post } from '../support/client.ts';
import { shiftedFamily } from '../support/family-rows.ts';
import { invalidGrantBody, login, refresh, revoke } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';
import {
  ABSOLUTE_SECONDS,
  ACCESS_SECONDS,
  activity,
  addAccessToken,
  CLIENT_SCOPE,
  IDLE_SECONDS,
  isGood,
  isSameScope,
  type Model,
  type ModelAccessToken,
  type ModelFamily,
  pass,
  present,
  reusable,
  rotate,
  STEP_SECONDS,
  startFamily,
  WINDOW_SECONDS,
} from './family-model.ts';

const LIVES = 100;
const ACTIONS = 25;
/** Less than half a step. */
const TOLERANCE_SECONDS = 40;
const MAXIMUM_ACCESS_TOKENS = 16;

const server = await startServer(t, { isRateLimitOn: false });
const { clients, resourceOwners, tokens } = server.dependencies;

async function register(clientId: string): Promise<{ id: string; secret: string }> {
  const { clientSecret } = await clients.create({
    clientId,
    clientType: 'confidential',
    grantTypes: ['password', 'refresh_token'],
    scope: CLIENT_SCOPE.split(' '),
    introspectionRight: 'own',
    accessTokenLifetimeSeconds: ACCESS_SECONDS,
    refreshTokenIdleLifetimeSeconds: IDLE_SECONDS,
    refreshTokenLifetimeSeconds: ABSOLUTE_SECONDS,
    retryWindowSeconds: WINDOW_SECONDS,
  });
  return { id: clientId, secret: clientSecret as string };
}

const callers = { owner: await register('owner'), stranger: await register('stranger') };
type By = keyof typeof callers;

function assert(isRight: boolean, claim: string, found: unknown): void {
  if (!isRight) throw new Error(`should be ${claim}, and is ${JSON.stringify(found)}`);
}

const assertOk = ({ status, body }: Answer) => assert(status === 200, '200', { status, body });

function assertError({ status, body }: Answer, code: string): void {
  assert(status === 400 && body.error === code, `400 ${code}`, { status, body });
  const { error_description } = invalidGrantBody;
  if (code === 'invalid_grant') assert(body.error_description === error_description, code, body);
}

function assertSecondsLeft({ body }: Answer, predicted: number): void {
  const difference = Math.abs(body.expires_in - predicted);
  assert(difference < TOLERANCE_SECONDS, `good for ${predicted} s`, body);
}

/** A token that nobody has seen before, with what the answer says about it. */
function assertNewAccessToken(model: Model, family: ModelFamily, answer: Answer): ModelAccessToken {
  const { access_token: text, scope } = answer.body;
  assert(!activity(model).some(([seen]) => seen === text), 'a new access token', answer.body);
  const added = addAccessToken(model, family, { text, scope });
  assertSecondsLeft(answer, added.expiresAt - model.now);
  return added;
}

interface World {
  readonly model: Model;
  readonly username: string;
  readonly subject: string;
}

type Action = (world: World) => Promise<void>;

/** Gives an action the name by which fast-check prints it. */
const named = (name: string, action: Action): Action =>
  Object.assign(action, { [fc.toStringMethod]: () => name });

/** Whatever was generated finds a member of what there is; undefined where there is none. */
const pick = <T>(list: readonly T[], index: number): T | undefined => list[index % list.length];

const logIn = (scope: string | undefined, isPasswordRight: boolean): Action =>
  named(`login(${scope}, ${isPasswordRight})`, async ({ model, username }) => {
    const password = isPasswordRight ? model.password : `${model.password}, or another`;
    const parameters = { username, password, ...(scope && { scope }) };
    const answer = await login(server, callers.owner, parameters);
    if (model.isDisabled || !isPasswordRight) return assertError(answer, 'invalid_grant');
    assertOk(answer);
    assert(isSameScope(answer.body.scope, scope ?? CLIENT_SCOPE), 'the scope', answer.body);
    const family = startFamily(model, answer.body.scope);
    assertNewAccessToken(model, family, answer);
    family.refreshTokens.push(answer.body.refresh_token);
  });

const refreshWith = (index: number, back: number, scope: string | undefined, by: By): Action =>
  named(`refresh(family ${index}, current - ${back}, ${scope}, ${by})`, async ({ model }) => {
    const family = pick(model.families, index);
    // Which of too many access tokens goes is not what this is about.
    if (family === undefined || family.accessTokens.length >= MAXIMUM_ACCESS_TOKENS) return;
    const generation = Math.max(0, family.refreshTokens.length - 1 - back);
    const token = family.refreshTokens[generation] as string;
    const answer = await refresh(server, callers[by], token, { ...(scope && { scope }) });
    const prediction = present(model, family, { generation, scope, isOwner: by === 'owner' });
    if (prediction !== 'rotate' && prediction !== 'retry') return assertError(answer, prediction);

    assertOk(answer);
    assert(isSameScope(answer.body.scope, scope ?? family.scope), 'the scope', answer.body);
    const refreshToken: string = answer.body.refresh_token;
    if (prediction === 'rotate') {
      const isNew = !activity(model).some(([seen]) => seen === refreshToken);
      assert(isNew, 'a new refresh token', answer.body);
      rotate(model, family, refreshToken, assertNewAccessToken(model, family, answer));
      return;
    }
    assert(refreshToken === family.refreshTokens.at(-1), 'the same successor', answer.body);
    const derived = reusable(model, family, answer.body.scope);
    if (derived === undefined) assertNewAccessToken(model, family, answer);
    else {
      assert(answer.body.access_token === derived.text, 'the same access token', answer.body);
      assertSecondsLeft(answer, derived.expiresAt - model.now);
    }
  });

const revokeRefreshToken = (index: number, back: number, by: By): Action =>
  named(`revoke(family ${index}, current - ${back}, ${by})`, async ({ model }) => {
    const family = pick(model.families, index);
    if (family === undefined) return;
    const generation = Math.max(0, family.refreshTokens.length - 1 - back);
    const answer = await revoke(server, callers[by], family.refreshTokens[generation] as string);
    if (by === 'stranger') return assertError(answer, 'invalid_grant');
    assertOk(answer);
    family.isRevoked = true;
  });

const revokeAccessToken = (index: number, which: number, by: By): Action =>
  named(`revoke(family ${index}, access token ${which}, ${by})`, async ({ model }) => {
    const family = pick(model.families, index);
    const token = family && pick(family.accessTokens, which);
    // For how long a dead token is remembered, and a stranger refused, is nobody's promise.
    if (!token || (by === 'stranger' && !isGood(model, family, token))) return;
    const answer = await revoke(server, callers[by], token.text);
    if (by === 'stranger') return assertError(answer, 'invalid_grant');
    assertOk(answer);
    token.isRevoked = true;
  });

const administer = (change: 'disable' | 'enable' | 'setPassword'): Action =>
  named(change, async ({ model, username }) => {
    if (change === 'setPassword') {
      model.password += ', once more';
      await resourceOwners.setPassword(username, model.password);
    } else {
      model.isDisabled = change === 'disable';
      await resourceOwners[change](username);
    }
    for (const family of model.families) family.isRevoked = true;
  });

/** Lets time pass by shifting every instant there is. While the service is down it gives no pulse. */
const letPass = (steps: number, service: 'up' | 'down'): Action =>
  named(`pass(${steps * STEP_SECONDS} s, ${service})`, async ({ model, subject }) => {
    // An outage that no request has met yet is found by an instance that gives its next pulse.
    await tokens.recordPulse();
    await server.inspect.query(
      `with passed as (select $2 * interval '1 second' as time), family as (
         update token_family set ${shiftedFamily} from passed where resource_owner_id = $1
       )
       update server_state set
         pulse_at = clock_timestamp() - case when $3 then interval '0' else time end,
         outage_began_at = outage_began_at - time, resumed_at = resumed_at - time
       from passed`,
      [subject, steps * STEP_SECONDS, service === 'up'],
    );
    pass(model, steps * STEP_SECONDS, service);
  });

/** Draws of one kind, so many times as often as others. */
const often = <T>(weight: number, arbitrary: fc.Arbitrary<T>) => ({ weight, arbitrary });

const few = fc.nat({ max: 3 });
const by = fc.oneof(often(12, fc.constant<By>('owner')), often(1, fc.constant<By>('stranger')));
const back = fc.oneof(
  often(9, fc.constant(0)),
  often(9, fc.constant(1)),
  often(2, fc.integer({ min: 2, max: 4 })),
);
const scope = fc.oneof(
  often(3, fc.constant(undefined)),
  often(2, fc.constantFrom('read', 'write', 'write read', 'read admin')),
);
const loginScope = fc.constantFrom(undefined, 'read', 'read write');
const isRight = fc.constantFrom(true, true, false);
const change = fc.constantFrom('disable' as const, 'enable', 'enable', 'setPassword');
const steps = fc.constantFrom(1, 1, 1, 2, 3, 8, 10, 15);
const service = fc.constantFrom('up' as const, 'up', 'down');
const action: fc.Arbitrary<Action> = fc.oneof(
  often(
    30,
    fc.tuple(few, back, scope, by).map((drawn) => refreshWith(...drawn)),
  ),
  often(
    3,
    fc.tuple(loginScope, isRight).map((drawn) => logIn(...drawn)),
  ),
  often(
    1,
    fc.tuple(few, back, by).map((drawn) => revokeRefreshToken(...drawn)),
  ),
  often(
    4,
    fc.tuple(few, few, by).map((drawn) => revokeAccessToken(...drawn)),
  ),
  often(1, change.map(administer)),
  often(
    9,
    fc.tuple(steps, service).map((drawn) => letPass(...drawn)),
  ),
);

let people = 0;

async function live(life: readonly Action[]): Promise<void> {
  const username = `person-${++people}`;
  const password = 'a phrase that only they know';
  const { subject } = await resourceOwners.create(username, password);
  await server.inspect.query(
    `update server_state
     set pulse_at = clock_timestamp(), outage_began_at = null, resumed_at = null`,
  );
  const model: Model = { now: 0, outage: undefined, password, isDisabled: false, families: [] };
  for (const act of [logIn(undefined, true), ...life]) {
    await act({ model, username, subject });
    await assertActivity(model);
  }
}

async function assertActivity(model: Model): Promise<void> {
  const { id, secret } = callers.owner;
  const check = async ([token, isActive]: readonly [string, boolean]) => {
    const { body } = await post(`${server.url}/introspect`, { token }, basic(id, secret));
    assert(body.active === isActive, `${token} with active = ${isActive}`, body);
  };
  await Promise.all(activity(model).map(check));
}

t.test('RFC 9700 §4.14.2: families live and die as the model says', async () => {
  const lives = fc.noBias(fc.array(action, { maxLength: ACTIONS, size: 'max' }));
  await fc.assert(fc.asyncProperty(lives, live), {
    numRuns: LIVES,
    interruptAfterTimeLimit: 100_000,
    markInterruptAsFailure: true,
  });
});
