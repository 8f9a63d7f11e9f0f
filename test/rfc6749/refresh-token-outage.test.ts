/**
 * Trouble with the database is no verdict on a token. RFC 6749 §5.2 has no code for it, and a client
 * that is told `invalid_grant` signs the person out; RFC 9110 §15.6.4 has 503 and `Retry-After`.
 */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net';
import { setTimeout as delay } from 'node:timers/promises';
import t, { type Test } from 'tap';
import { TemporarilyUnavailable } from '../../src/oauth/errors.ts';
import type { TokenRequest } from '../../src/oauth/grants/grant.ts';
import {
  formatRefreshToken,
  generateFamilyId,
  generateLineage,
  generateSecret,
  parseOpaqueToken,
} from '../../src/oauth/opaque-token.ts';
import { lookUpStatement, rotateStatement } from '../../src/storage/hot-statements.ts';
import type { Statement } from '../../src/storage/statement.ts';
import type { Answer } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import { hasFailed } from '../support/errors.ts';
import { createCast, login, refresh, refreshRequest } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

/** A road to the database that can be closed. */
interface DatabaseProxy {
  readonly url: string;
  /** Passes nothing on, in either direction, while every connection stays open. */
  fallSilent(): void;
  /** From the next use of this statement on the database works, and its answers get lost. */
  loseRepliesFrom(statement: Statement): void;
  /** Ends every connection and takes no new one. */
  cut(): Promise<void>;
  /** Behaves well again, for new connections. */
  restore(): Promise<void>;
}

async function startProxy(t: Test, databaseUrl: string): Promise<DatabaseProxy> {
  const target = new URL(databaseUrl);
  const sockets = new Set<Socket>();
  let isSilent = false;
  let isLosingReplies = false;
  let fatalStatement: Statement | undefined;
  const listener = createServer((near) => {
    const far = connect(Number(target.port), target.hostname);
    near.on('data', (bytes) => {
      if (isSilent) return;
      if (fatalStatement && bytes.includes(`${fatalStatement.name}\0`)) isLosingReplies = true;
      far.write(bytes);
    });
    far.on('data', (bytes) => {
      if (!isSilent && !isLosingReplies) near.write(bytes);
    });
    for (const [socket, peer] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => {});
      socket.on('close', () => {
        sockets.delete(socket);
        peer.destroy();
      });
    }
  });
  const listen = (port: number) =>
    new Promise<void>((resolve) => listener.listen(port, '127.0.0.1', resolve));
  const cut = () =>
    new Promise<void>((resolve) => {
      listener.close(() => resolve());
      for (const socket of sockets) socket.destroy();
    });
  await listen(0);
  const { port } = listener.address() as AddressInfo;
  t.teardown(cut);
  const url = new URL(databaseUrl);
  url.host = `127.0.0.1:${port}`;
  return {
    url: url.href,
    fallSilent() {
      isSilent = true;
    },
    loseRepliesFrom(statement) {
      fatalStatement = statement;
    },
    cut,
    restore() {
      isSilent = false;
      isLosingReplies = false;
      fatalStatement = undefined;
      return listen(port);
    },
  };
}

const database = await createTestDatabase(t);
const proxy = await startProxy(t, database.url);
const server = await startServer(t, {
  database: { ...database, url: proxy.url },
  isRateLimitOn: false,
});
const { c1 } = await createCast(server);

function isUnavailable(t: Test, answer: Answer, why: string): void {
  hasFailed(t, answer, 503, 'temporarily_unavailable', why);
  t.match(answer.headers.get('retry-after'), /^[1-9][0-9]*$/, why);
}

/** No answer at all is the one thing that cannot be awaited. */
const answerWithin = (seconds: number, answer: Promise<Answer>): Promise<Answer | 'no answer'> =>
  Promise.race([answer, delay(seconds * 1000, 'no answer' as const, { ref: false })]);

const unknownToken = () =>
  formatRefreshToken(generateFamilyId(), generateLineage(), generateSecret());

const loggedIn = async (): Promise<string> => (await login(server, c1)).body.refresh_token;

t.test('RFT-31 RFC 9110 §15.6.4: an unavailable database is 503 and spends nothing', async (t) => {
  await t.test('one that refuses connections', async (t) => {
    const r0 = await loggedIn();
    await proxy.cut();
    for (const token of [r0, r0, unknownToken()]) {
      isUnavailable(t, await refresh(server, c1, token), 'while it is away');
    }
    await proxy.restore();
    t.equal((await refresh(server, c1, r0)).status, 200, 'R0 is good when it is back');
  });

  await t.test('one that is lost while requests wait for it', async (t) => {
    const tokens = await Promise.all([loggedIn(), loggedIn(), loggedIn()]);
    proxy.loseRepliesFrom(lookUpStatement);
    const underWay = tokens.map((token) => refresh(server, c1, token));
    await delay(300);
    await proxy.cut();
    for (const answer of await Promise.all(underWay)) isUnavailable(t, answer, 'cut off');
    await proxy.restore();
    for (const token of tokens) t.equal((await refresh(server, c1, token)).status, 200);
  });

  await t.test('one that rotated, and whose answer never came', async (t) => {
    const r0 = await loggedIn();
    const generation = async (): Promise<number> => {
      const { rows } = await database.inspect.query(
        'select generation from token_family where id = $1',
        [parseOpaqueToken(r0)?.familyId],
      );
      return rows[0].generation;
    };
    proxy.loseRepliesFrom(rotateStatement);
    const underWay = refresh(server, c1, r0);
    while ((await generation()) === 0) await delay(20);
    await proxy.cut();
    isUnavailable(t, await underWay, 'the outcome is unknown to the server');
    await proxy.restore();
    const retried = await refresh(server, c1, r0);
    t.equal(retried.status, 200, 'the retry sorts it out');
    t.equal(await generation(), 1, 'there was one rotation');
    t.equal((await refresh(server, c1, retried.body.refresh_token)).status, 200);
  });

  await t.test('one that says nothing at all', async (t) => {
    const r0 = await loggedIn();
    proxy.fallSilent();
    const answer = await answerWithin(20, refresh(server, c1, r0));
    await proxy.cut();
    await proxy.restore();
    if (answer === 'no answer') t.fail('a statement must have a deadline');
    else isUnavailable(t, answer, 'while it is silent');
    t.equal((await refresh(server, c1, r0)).status, 200, 'R0 is good when it talks again');
  });
});

t.test('a refresh that nobody waits for any more spends nothing', async (t) => {
  const refreshToken = await loggedIn();
  await t.rejects(
    server.dependencies.authorizationServer.token({
      ...refreshRequest(refreshToken),
      credentials: { method: 'client_secret_basic', clientId: c1.id, clientSecret: c1.secret },
      isAbandoned: () => true,
    }),
    TemporarilyUnavailable,
  );
  const { rows } = await server.inspect.query('select generation from token_family where id = $1', [
    parseOpaqueToken(refreshToken)?.familyId,
  ]);
  t.strictSame(rows, [{ generation: 0 }]);
});

t.test(
  'whoever has hung up waits no more, nor anybody whose answer would be too late',
  async (t) => {
    const requests: TokenRequest[] = [];
    let end = () => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    t.capture(server.dependencies.authorizationServer, 'token', async (request: TokenRequest) => {
      requests.push(request);
      await ended;
      throw new TemporarilyUnavailable('the test is over');
    });
    const abandoned = () => requests.map(({ isAbandoned }) => isAbandoned());
    const patient = refresh(server, c1, unknownToken());
    while (requests.length < 1) await delay(10);
    const caller = connect(Number(new URL(server.url).port), '127.0.0.1');
    const body = 'grant_type=refresh_token&client_id=x';
    caller.write(
      'POST /token HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/x-www-form-urlencoded\r\n' +
        `content-length: ${body.length}\r\n\r\n${body}`,
    );
    while (requests.length < 2) await delay(10);
    t.strictSame(abandoned(), [false, false]);
    caller.destroy();
    for (let turn = 0; turn < 100 && !abandoned()[1]; turn++) await delay(20);
    t.strictSame(abandoned(), [false, true], 'one has hung up');
    const now = performance.now.bind(performance);
    t.capture(performance, 'now', () => now() + 4000);
    t.strictSame(abandoned(), [true, true], 'it is too late for the other');
    end();
    isUnavailable(t, await patient, 'is told so');
  },
);
