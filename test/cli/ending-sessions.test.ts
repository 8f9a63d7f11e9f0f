/** Whatever a command ends is over at the next request, on every instance. */
import t, { type Test } from 'tap';
import type { Answer } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import {
  ALICE_PASSWORD,
  API_AUDIENCE,
  type Caller,
  createCast,
  introspect,
  invalidGrantBody,
  login,
  refresh,
} from '../support/fixtures.ts';
import { heirloom } from '../support/process.ts';
import { startServer } from '../support/server.ts';

const database = await createTestDatabase(t);
const instances = [await startServer(t, { database }), await startServer(t, { database })] as const;
const [one, other] = instances;
const { c1, c2, rs1 } = await createCast(one);
const bob = { username: 'bob' };
await one.dependencies.resourceOwners.create(bob.username, ALICE_PASSWORD);

async function command(...words: string[]): Promise<string> {
  const { code, stdout, stderr } = await heirloom(words, { env: { DATABASE_URL: database.url } });
  if (code !== 0) throw new Error(`${words.join(' ')}: ${stderr}`);
  return stdout;
}

/** A session begun at each of the instances. */
async function logIn(caller: Caller, parameters: Record<string, string> = {}): Promise<Answer[]> {
  const sessions: Answer[] = [];
  for (const instance of instances) sessions.push(await login(instance, caller, parameters));
  return sessions;
}

/** Asks both instances for both tokens of each session, which must be all alive or all dead. */
async function assertAlive(
  t: Test,
  caller: Caller,
  sessions: readonly Answer[],
  isAlive: boolean,
): Promise<void> {
  for (const { body } of sessions) {
    for (const instance of instances) {
      for (const token of [body.access_token, body.refresh_token]) {
        const answer = await introspect(instance, caller, token);
        if (isAlive) t.match(answer.body, { active: true });
        else t.strictSame(answer.body, { active: false });
      }
    }
  }
}

/** Nobody refreshes such a session anywhere. */
async function assertOver(t: Test, caller: Caller, sessions: readonly Answer[]): Promise<void> {
  await assertAlive(t, caller, sessions, false);
  for (const { body } of sessions) {
    for (const instance of instances) {
      const answer = await refresh(instance, caller, body.refresh_token);
      t.equal(answer.status, 400);
      t.strictSame(answer.body, invalidGrantBody);
    }
  }
}

t.test('LIF-01 ASVS 7.4.2: whoever is disabled is out at the next request', async (t) => {
  const sessions = await logIn(c1);
  const others = await logIn(c1, bob);
  await assertAlive(t, c1, sessions, true);
  await command('user', 'disable', 'alice');
  await assertOver(t, c1, sessions);
  t.strictSame((await login(other, c1)).body, invalidGrantBody, 'nor is there a way back in');
  await assertAlive(t, c1, others, true);

  await command('user', 'enable', 'alice');
  await assertOver(t, c1, sessions);
  t.equal((await login(other, c1)).status, 200, 'but a new login is');
});

t.test('LIF-02 RFC 6749 §3.2.1: with its client a token is gone', async (t) => {
  const { clientSecret } = await one.dependencies.clients.create({
    clientId: 'doomed',
    clientType: 'confidential',
    grantTypes: ['password', 'refresh_token'],
    scope: ['read'],
    audience: [API_AUDIENCE],
  });
  const doomed = { id: 'doomed', secret: clientSecret as string };
  const sessions = await logIn(doomed);
  const assertAccess = async (active: boolean) => {
    for (const { body } of sessions) {
      for (const instance of instances) {
        const answer = await introspect(instance, rs1, body.access_token);
        t.equal(answer.body.active, active);
      }
    }
  };
  await assertAccess(true);
  await command('client', 'delete', doomed.id);
  await assertAccess(false);
  for (const { body } of sessions) {
    for (const instance of instances) {
      const refreshed = await refresh(instance, doomed, body.refresh_token);
      t.equal(refreshed.status, 401);
      t.match(refreshed.body, { error: 'invalid_client' });
    }
  }
});

t.test('LIF-03 ASVS 7.4.5: all sessions of a person, of a client, or all there are', async (t) => {
  const ofAlice = await logIn(c1);
  const ofBob = await logIn(c1, bob);
  const ofBobElsewhere = await logIn(c2, bob);
  await command('session', 'revoke', '--user', 'alice');
  await assertOver(t, c1, ofAlice);
  await assertAlive(t, c1, ofBob, true);

  await command('session', 'revoke', '--client', c1.id);
  await assertOver(t, c1, ofBob);
  await assertAlive(t, c2, ofBobElsewhere, true);

  const last = await logIn(c1, bob);
  await assertAlive(t, c1, last, true);
  await command('session', 'revoke', '--all');
  await assertOver(t, c1, last);
  await assertOver(t, c2, ofBobElsewhere);
});

t.test('LIF-04 ASVS 7.5.2: one device is ended and the others stay', async (t) => {
  const labels = ['phone', 'laptop', 'television'];
  const sessions: Answer[] = [];
  for (const device_label of labels) sessions.push(await login(one, c1, { ...bob, device_label }));
  const listed: Record<string, string>[] = JSON.parse(
    await command('session', 'list', 'bob', '--json'),
  );
  t.strictSame(new Set(listed.map((session) => session['device_label'])), new Set(labels));
  const found = listed.find((session) => session['device_label'] === 'laptop');
  await command('session', 'revoke', found?.['id'] as string);
  const [phone, laptop, television] = sessions as [Answer, Answer, Answer];
  await assertOver(t, c1, [laptop]);
  await assertAlive(t, c1, [phone, television], true);
});
