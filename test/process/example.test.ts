/** `npm run example`: its servers and their PostgreSQL end with it, unless a second Ctrl-C hurries them. */
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import {
  isPostgresRunning,
  type ProcessGroup,
  sendHalfARequest,
  startGroup,
  temporaryDirectory,
  until,
} from '../support/process.ts';

// Eight starts, one after the other.
t.setTimeout(240_000);

const DIRECTLY = [process.execPath, 'src/client/example/run.ts'] as const;
const BY_NPM = ['npm', 'run', 'example'] as const;

const startExample = (
  t: Test,
  dataDir: string,
  command: readonly [string, ...string[]] = DIRECTLY,
): ProcessGroup => startGroup(t, command, { DATA_DIR: dataDir, API_PORT: '0', PAGE_PORT: '0' });

/** Waits until the example says where everything is. */
async function servers(example: ProcessGroup) {
  const pattern = /Open (\S+) .*\nThe API is at (\S+), the authorization server at (\S+)\.\n/;
  const [, page = '', api = '', authorizationServer = ''] = await example.waitForOutput(pattern);
  return { page, api, authorizationServer };
}

const isAnswering = (url: string) =>
  fetch(url).then(
    () => true,
    () => false,
  );

/** Nobody answers and PostgreSQL is stopped. */
async function isAllGone(dataDir: string, urls: Readonly<Record<string, string>>) {
  const answering = await Promise.all(Object.values(urls).map(isAnswering));
  return !answering.includes(true) && !isPostgresRunning(dataDir);
}

t.test('a signal to the whole group ends everything before the example ends', async (t) => {
  const dataDir = temporaryDirectory(t);
  const cases = [
    [DIRECTLY, ['SIGTERM']],
    [DIRECTLY, ['SIGHUP']],
    // As `timeout` sends it, and npm to what has been signalled with its group.
    [DIRECTLY, ['SIGINT', 'SIGINT']],
    [BY_NPM, ['SIGTERM']],
  ] as const;
  for (const [command, signals] of cases) {
    const example = startExample(t, dataDir, command);
    const urls = await servers(example);
    t.ok(isPostgresRunning(dataDir));
    if (signals[0] === 'SIGHUP') example.hangUp();
    for (const signal of signals) {
      example.signalGroup(signal);
      await delay(20);
    }
    const name = `${command.slice(1).join(' ')}: ${signals}`;
    t.equal(await example.exit, 0, name);
    t.ok(await isAllGone(dataDir, urls), name);
  }
});

t.test('a signal during the start leaves nothing behind', async (t) => {
  const dataDir = temporaryDirectory(t);
  const example = startExample(t, dataDir);
  await until(() => isPostgresRunning(dataDir));
  t.notMatch(example.output(), 'listening on');
  example.signalGroup('SIGTERM');
  t.equal(await example.exit, 0);
  t.notOk(isPostgresRunning(dataDir));
  t.notMatch(example.output(), 'The API');
});

t.test('a second Ctrl-C does not wait for requests in flight', async (t) => {
  const dataDir = temporaryDirectory(t);
  const example = startExample(t, dataDir);
  sendHalfARequest(t, (await servers(example)).authorizationServer);
  await delay(300);
  example.signalGroup('SIGINT');
  t.equal(await Promise.race([example.exit, delay(2000, 'waiting')]), 'waiting');
  example.signalGroup('SIGINT');
  t.equal(await Promise.race([example.exit, delay(2000, 'waiting')]), 1);
});

t.test(
  'servers end by themselves when the example is killed, or the npm that runs it',
  async (t) => {
    const dataDir = temporaryDirectory(t);
    for (const command of [DIRECTLY, BY_NPM]) {
      const example = startExample(t, dataDir, command);
      const urls = await servers(example);
      process.kill(example.pid, 'SIGKILL');
      await until(() => isAllGone(dataDir, urls));
      t.pass(`all gone after ${command.slice(1).join(' ')}`);
    }
  },
);
