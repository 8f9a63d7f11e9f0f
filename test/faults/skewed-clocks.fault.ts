/** Two servers whose clocks are wrong by ten minutes, one ahead and one behind, while the database's is right. */
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { createTokenGuard, type TokenGuard } from '../../src/resource-server/resource-server.ts';
import { APP_ORIGIN, ownApp, setCookies } from '../support/browser.ts';
import { type Answer, post } from '../support/client.ts';
import { heirloom } from '../support/process.ts';
import {
  createLoadClient,
  introspect,
  type LoadClient,
  login,
  PASSWORD,
  refresh,
  type Target,
} from './load.ts';
import { arrange, startPostgres, startServerProcess } from './support.ts';
import { verifyLogs } from './verify.ts';

t.setTimeout(120_000);

const TEN_MINUTES = 600_000;
/** Long enough for a busy machine to ask about what has just been issued. */
const BRIEF_SECONDS = 11;
const WINDOW_SECONDS = 10;

/** Makes a process believe that it is earlier or later; what measures time without a date stays right. */
const wrongClock = (milliseconds: number): Record<string, string> => {
  const source = `
    import { ServerResponse } from 'node:http';
    globalThis.Date = new Proxy(Date, {
      construct: (RightDate, given, made) =>
        Reflect.construct(RightDate, given.length > 0 ? given : [made.now()], made),
      get: (RightDate, key) =>
        key === 'now' ? () => RightDate.now() + ${milliseconds} : Reflect.get(RightDate, key),
    });
    const { writeHead } = ServerResponse.prototype;
    ServerResponse.prototype.writeHead = function (...given) {
      // Node's own module has kept the right date.
      this.setHeader('date', new Date().toUTCString());
      return writeHead.apply(this, given);
    };`;
  return { NODE_OPTIONS: `--import=data:text/javascript,${encodeURIComponent(source)}` };
};

const postgres = await startPostgres(t);
const database = await postgres.createDatabase();
const holder = await createLoadClient(database, ['alice', 'guessed'], {
  retryWindowSeconds: WINDOW_SECONDS,
});
const brief = await arrange(database.url, async ({ clients }) => {
  const grants = { grantTypes: ['password', 'refresh_token'], scope: ['read'] };
  const { clientSecret } = await clients.create({
    ...grants,
    clientId: 'brief',
    clientType: 'confidential',
    introspectionRight: 'own',
    accessTokenLifetimeSeconds: BRIEF_SECONDS,
    refreshTokenIdleLifetimeSeconds: BRIEF_SECONDS,
  });
  await clients.create({
    ...grants,
    clientId: 'app',
    clientType: 'public',
    delivery: 'cookie',
    origins: [APP_ORIGIN],
  });
  return { id: 'brief', secret: clientSecret as string };
});

const start = async (name: string, skew: number) => {
  const environment = { ...wrongClock(skew), RATE_LIMIT: 'on', LOG_LEVEL: 'info' };
  const server = await startServerProcess(t, database.url, environment);
  return { name, skew, server, target: (() => server.url) satisfies Target };
};
const instances = await Promise.all([start('ahead', TEN_MINUTES), start('behind', -TEN_MINUTES)]);
type Instance = (typeof instances)[number];

const granted = async (reply: Promise<unknown>): Promise<Answer> => {
  const answer = (await reply) as Answer;
  t.equal(answer.status, 200);
  return answer;
};

/** What each instance says of a token. */
const activeAt = (client: LoadClient, token: string): Promise<boolean[]> =>
  Promise.all(
    instances.map(async ({ target }) => {
      const { body } = await granted(introspect(target, client, token));
      return body.active;
    }),
  );

const guardOf = ({ server }: Instance): TokenGuard =>
  createTokenGuard({
    introspectionEndpoint: `${server.url}/introspect`,
    clientId: brief.id,
    clientSecret: brief.secret,
    cache: { maximumAgeSeconds: 10 * BRIEF_SECONDS },
  });

const outcomeOf = async (guard: TokenGuard, token: string): Promise<string> =>
  (await guard.check({ headers: { authorization: `Bearer ${token}` } })).outcome;

t.test(
  'F20 I3, I4: what two servers whose clocks are wrong say is what the database knows',
  async (t) => {
    for (const { name, skew, server, target } of instances) {
      const { headers, body } = await granted(login(target, holder, 'alice'));
      const wrong = Date.parse(headers.get('date') as string) - Date.now();
      t.ok(Math.abs(wrong - skew) < TEN_MINUTES / 2, `${name}: the clock is wrong`);
      const logged = /"time":"([^"]+)"/.exec(server.output())?.[1];
      t.ok(Math.abs(Date.parse(logged as string) - Date.now() - skew) < TEN_MINUTES / 2);
      const told = await Promise.all(
        instances.map((each) => granted(introspect(each.target, holder, body.access_token))),
      );
      for (const answer of told) {
        t.equal(answer.body.exp - answer.body.iat, body.expires_in, 'one life, whoever tells');
        t.ok(Math.abs(answer.body.iat - Date.now() / 1000) < 60, 'and by the right clock');
      }

      const parameters = { grant_type: 'password', username: 'alice', password: PASSWORD };
      const app = await post(`${server.url}/token`, { ...parameters, client_id: 'app' }, ownApp);
      t.equal(app.status, 200);
      const lifeOfCookie = Number(setCookies(app)[0]?.attributes['max-age']);
      t.ok(lifeOfCookie > 604_700 && lifeOfCookie <= 604_800, `a cookie lives ${lifeOfCookie} s`);
    }
  },
);

t.test('lives and windows end by the clock of the database', async (t) => {
  await Promise.all(
    instances.map(async (instance) => {
      const { target } = instance;
      const guard = guardOf(instance);
      const { access_token, refresh_token } = (await granted(login(target, brief, 'alice'))).body;
      const issuedAt = performance.now();
      t.strictSame(await activeAt(brief, access_token), [true, true]);
      t.strictSame(await activeAt(brief, refresh_token), [true, true]);
      t.equal(await outcomeOf(guard, access_token), 'granted');

      const first = (await granted(login(target, holder, 'alice'))).body;
      const lost = (await granted(refresh(target, holder, first.refresh_token))).body;
      const rotatedAt = performance.now();
      await delay((WINDOW_SECONDS / 2) * 1000);
      const retry = (await granted(refresh(target, holder, first.refresh_token))).body;
      t.equal(retry.refresh_token, lost.refresh_token, 'a retry in the window gets its answer');
      await delay(rotatedAt + (WINDOW_SECONDS + 1) * 1000 - performance.now());
      t.match(await refresh(target, holder, first.refresh_token), {
        status: 400,
        body: { error: 'invalid_grant' },
      });
      t.strictSame(await activeAt(holder, lost.refresh_token), [false, false], 'a replay later on');
      t.strictSame(await activeAt(holder, lost.access_token), [false, false]);

      await delay(issuedAt + (BRIEF_SECONDS + 1) * 1000 - performance.now());
      t.strictSame(await activeAt(brief, access_token), [false, false]);
      t.strictSame(await activeAt(brief, refresh_token), [false, false]);
      t.equal(await outcomeOf(guard, access_token), 'refused', 'a cache knows the end, too');
      for (const each of instances) {
        t.match(await refresh(each.target, brief, refresh_token), { status: 400 });
      }
    }),
  );
});

t.test('whoever guesses waits for a minute at most, and hears so everywhere', async (t) => {
  const guess = ({ target }: Instance) => login(target, holder, 'guessed', 'a wrong guess');
  for (let n = 0; n < 10; n++) await guess(instances[n % 2] as Instance);
  for (const instance of instances) {
    const { status, headers } = (await guess(instance)) as Answer;
    t.equal(status, 429);
    const wait = Number(headers.get('retry-after'));
    t.ok(wait >= 1 && wait <= 60, `${instance.name}: wait ${wait} s`);
  }
});

t.test('commands on a machine whose clock is wrong do what they say', async (t) => {
  const { target } = instances[0];
  const command = (skew: number, ...words: string[]) =>
    heirloom(words, { env: { DATABASE_URL: database.url, ...wrongClock(skew) } });
  const before = (await granted(login(target, holder, 'alice'))).body;
  t.match(await command(TEN_MINUTES, 'session', 'revoke', '--all'), { code: 0 });
  t.strictSame(await activeAt(holder, before.access_token), [false, false]);
  const after = (await granted(login(target, holder, 'alice'))).body;
  t.strictSame(await activeAt(holder, after.access_token), [true, true]);

  const words = ['client', 'rotate-secret', holder.id, '--overlap', '60'];
  t.match(await command(-TEN_MINUTES, ...words), { code: 0 });
  t.strictSame(await activeAt(holder, after.access_token), [true, true], 'the old secret works on');
  verifyLogs(t, instances.map(({ server }) => server.output()).join('\n'));
});
