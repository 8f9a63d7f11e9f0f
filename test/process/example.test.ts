/** `npm run example`: its servers and their PostgreSQL end with it, unless a second Ctrl-C hurries them. */
import { spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { connect } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { CHECKOUT, temporaryDirectory } from '../support/process.ts';

// Eight starts, one after the other.
t.setTimeout(240_000);

interface Example {
  readonly pid: number;
  readonly output: () => string;
  /** The exit code of the process itself, whoever else still has its standard error open. */
  readonly exit: Promise<number | null>;
  /** Signals the process group, as a terminal and most supervisors do. */
  signalGroup(signal: NodeJS.Signals): void;
  /** Closes its standard output, as a terminal does that is gone. */
  hangUp(): void;
}

const DIRECTLY = [process.execPath, 'src/client/example/run.ts'] as const;
const BY_NPM = ['npm', 'run', 'example'] as const;

function startExample(
  t: Test,
  dataDir: string,
  [command, ...words]: readonly [string, ...string[]] = DIRECTLY,
): Example {
  const child = spawn(command, words, {
    cwd: CHECKOUT,
    env: {
      PATH: process.env['PATH'],
      HOME: process.env['HOME'],
      DATA_DIR: dataDir,
      PORT: '0',
      API_PORT: '0',
      PAGE_PORT: '0',
    },
    stdio: ['ignore', 'pipe', 'inherit'],
    detached: true,
  });
  const pid = child.pid as number;
  let output = '';
  child.stdout.setEncoding('utf8').on('data', (chunk: string) => {
    output += chunk;
  });
  const exit = new Promise<number | null>((resolve) => child.once('exit', resolve));
  t.teardown(async () => {
    if (child.exitCode === null && child.signalCode === null) process.kill(-pid, 'SIGKILL');
    await exit;
    if (isPostgresRunning(dataDir)) process.kill(postmasterPid(dataDir), 'SIGINT');
    await until(() => !isPostgresRunning(dataDir));
  });
  return {
    pid,
    output: () => output,
    exit,
    signalGroup: (signal) => process.kill(-pid, signal),
    hangUp: () => child.stdout.destroy(),
  };
}

/** Waits until the example says where everything is. */
async function servers({ output }: Example) {
  const pattern = /Open (\S+) .*\nThe API is at (\S+), the authorization server at (\S+)\.\n/;
  await until(() => pattern.test(output()));
  const [, page = '', api = '', authorizationServer = ''] = pattern.exec(output()) ?? [];
  return { page, api, authorizationServer };
}

const pidFile = (dataDir: string) => join(dataDir, 'postgresql-18/cluster/postmaster.pid');
const postmasterPid = (dataDir: string) =>
  Number(readFileSync(pidFile(dataDir), 'utf8').split('\n', 1)[0]);
/** The server removes the file when it ends. */
const isPostgresRunning = (dataDir: string) => existsSync(pidFile(dataDir));

const isAnswering = (url: string) =>
  fetch(url).then(
    () => true,
    () => false,
  );

async function until(look: () => Promise<boolean> | boolean): Promise<void> {
  while (!(await look())) await delay(50);
}

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
  const { port, hostname } = new URL((await servers(example)).authorizationServer);
  const socket = connect(Number(port), hostname);
  socket.on('error', () => {});
  t.teardown(() => socket.destroy());
  socket.write(
    'POST /token HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n' +
      'Content-Length: 100\r\n\r\n',
  );
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
