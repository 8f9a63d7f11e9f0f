import { readdirSync, readFileSync } from 'node:fs';
import { getPriority } from 'node:os';
import argon2 from 'argon2';
import t from 'tap';
import { createHashGate } from '../../src/crypto/hash-gate.ts';
import { yieldToOthersWhileHashing } from '../../src/crypto/hash-priority.ts';
import { createPasswordHasher } from '../../src/crypto/password-hasher.ts';
import { passwordWeakness } from '../../src/crypto/password-policy.ts';
import { TemporarilyUnavailable } from '../../src/oauth/errors.ts';
import { cheapArgon2 } from '../support/server.ts';

const gate = createHashGate({ permits: 2, queueLimit: 10 });
const present = () => false;
const hasher = createPasswordHasher(cheapArgon2, gate);

t.test('a password matches itself in whatever normal form it was typed', async (t) => {
  const hash = await hasher.hash('caf\u00e9 caf\u00e9 caf\u00e9 caf\u00e9');
  t.match(hash, /^\$argon2id\$v=19\$m=\d+,t=\d+,p=\d+\$/, 'in the order of the PHC string format');
  t.equal(
    await hasher.verify('cafe\u0301 cafe\u0301 cafe\u0301 cafe\u0301', hash, present),
    'match',
  );
  t.equal(await hasher.verify('cafe cafe cafe cafe', hash, present), 'mismatch');
});

t.test('no hash, a damaged hash and a weaker hash are told apart', async (t) => {
  t.equal(await hasher.verify('x', undefined, present), 'mismatch');
  for (const damaged of [
    '',
    'x',
    '$argon2id$v=19$m=1,t=1,p=1$AA$AA',
    '$2b$10$abcdefghijklmnopqrstuv',
  ]) {
    t.equal(await hasher.verify('x', damaged, present), 'unreadable', damaged);
  }
  const hash = await hasher.hash('x');
  for (const stronger of [
    { ...cheapArgon2, memoryKibibytes: 2048 },
    { ...cheapArgon2, iterations: 3 },
  ]) {
    t.equal(
      await createPasswordHasher(stronger, gate).verify('x', hash, present),
      'match-needs-rehash',
    );
  }
});

t.test('a machine without memory for a hash says nothing about the password', async (t) => {
  const stored = await hasher.hash('x');
  const lackOfMemory = { value: async () => Promise.reject(new Error('Memory allocation error')) };
  t.intercept(argon2, 'verify', lackOfMemory);
  t.intercept(argon2, 'hash', lackOfMemory);
  for (const passwordHash of [stored, undefined]) {
    await t.rejects(hasher.verify('x', passwordHash, present), TemporarilyUnavailable);
  }
});

t.test('nothing is hashed for whoever has gone while waiting', async (t) => {
  const stored = await hasher.hash('x');
  for (const passwordHash of [stored, undefined]) {
    await t.rejects(
      hasher.verify('x', passwordHash, () => true),
      TemporarilyUnavailable,
    );
  }
});

t.test('whoever does not exist costs the normalising of the password too', async (t) => {
  const cheapest = { memoryKibibytes: 8, iterations: 2, parallelism: 1 };
  const { hash, verify } = createPasswordHasher(cheapest, gate);
  const stored = await hash('a password like any other');
  // As many marks as are normalised at all, in the order that takes longest to sort.
  const marks = `a${'\u0301'.repeat(511)}${'\u0316'.repeat(511)}`;
  const shortest = { known: Number.POSITIVE_INFINITY, unknown: Number.POSITIVE_INFINITY };
  for (let n = 0; n < 40; n++) {
    const name = n % 2 ? 'known' : 'unknown';
    const began = performance.now();
    t.equal(await verify(marks, n % 2 ? stored : undefined, present), 'mismatch');
    shortest[name] = Math.min(shortest[name], performance.now() - began);
  }
  t.ok(
    shortest.unknown > shortest.known / 2,
    `${shortest.unknown} ms, and ${shortest.known} ms for somebody who exists`,
  );
});

t.test(
  'the gate bounds what runs and what waits, and a failure gives its permit back',
  async (t) => {
    const small = createHashGate({ permits: 1, queueLimit: 1 });
    let finish = () => {};
    const first = small(() => new Promise<void>((resolve) => (finish = resolve)));
    let isSecondRunning = false;
    const second = small(async () => {
      isSecondRunning = true;
      throw new Error('broken');
    });
    await t.rejects(
      small(async () => 0),
      TemporarilyUnavailable,
    );
    t.equal(isSecondRunning, false, 'it waits for its turn');
    finish();
    await first;
    await t.rejects(second, /broken/);
    t.equal(await small(async () => 'free again'), 'free again');
  },
);

t.test('short and obvious passwords are refused, with the reason', async (t) => {
  const refused: [string, RegExp][] = [
    ['fourteen chars', /at least 15/],
    ['x'.repeat(257), /at most 256/],
    ['aaaaaaaaaaaaaaaaaaaa', /repeats/],
    ['abcabcabcabcabcabc', /repeats/],
    ['abcdefghijklmnopq', /sequence/],
    ['9876543210987654321', /sequence/],
    ['qwertyuiopasdfgh', /sequence/],
    ['bartholomew-bartholomew', /user name/],
    ['Bartholomew 12345', /user name/],
    ['heirloom heirloom', /product/],
    ['Correct Horse Battery Staple', /well-known/],
    ['a line\nbreak in the middle', /control/],
  ];
  for (const [password, reason] of refused) {
    t.match(passwordWeakness(password, 'bartholomew'), reason, password);
  }
});

t.test('length counts characters, and there are no composition rules', async (t) => {
  for (const password of [
    '🙂🙃😀😁😂😃😄😅😆😇😈😉😊😋😌',
    'only lower case words',
    'x'
      .repeat(200)
      .replace(/x/g, (_, index: number) => String.fromCharCode(97 + ((index * 7) % 26))),
    ' leading and trailing ',
  ]) {
    t.equal(passwordWeakness(password, 'bartholomew'), undefined, password);
  }
  t.match(passwordWeakness('🙂🙃😀😁😂😃😄😅😆😇😈😉😊😋', 'bartholomew'), /at least 15/);
  const longest = 'as long as one may be, '.repeat(12).slice(0, 256);
  t.equal(passwordWeakness(longest, 'bartholomew'), undefined);
  t.match(passwordWeakness(`${longest}.`, 'bartholomew'), /at most 256/);
});

t.test(
  'threads that hash let everything else go first',
  { skip: process.platform !== 'linux' && 'threads have a priority of their own on Linux only' },
  async (t) => {
    await yieldToOthersWhileHashing();
    const tasks = readdirSync('/proc/self/task').map((task) => ({
      name: readFileSync(`/proc/self/task/${task}/comm`, 'utf8').trim(),
      niceness: getPriority(Number(task)),
    }));
    const workers = tasks.filter(({ name }) => name === 'libuv-worker');
    t.ok(workers.length > 0);
    for (const { niceness } of workers) t.equal(niceness, 10);
    t.equal(getPriority(), 0, 'the event loop keeps its own');
  },
);
