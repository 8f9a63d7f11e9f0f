/** Servers whose connections to PostgreSQL end, are blocked or refused, or lead nowhere. */
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import t, { type Test } from 'tap';
import type { TestDatabase } from '../support/database.ts';
import { temporaryDirectory } from '../support/process.ts';
import { startProxy } from '../support/proxy.ts';
import { ask, type ServerProcess, startPostgres, startServerProcess, until } from './support.ts';
import { createTrafficClient, startTraffic } from './traffic.ts';

t.setTimeout(120_000);

const MAXIMUM_CONNECTIONS = 40;
const postgres = await startPostgres(t, { max_connections: String(MAXIMUM_CONNECTIONS) });

/** What a supervisor and a balancer hear. */
const health = async ({ url }: ServerProcess): Promise<Record<string, number>> => ({
  livez: (await fetch(`${url}/livez`)).status,
  readyz: (await fetch(`${url}/readyz`)).status,
});

/** A connection that was made this moment answers once before it is found. */
const untilUnready = (server: ServerProcess) =>
  until(async () => (await health(server)).readyz === 503);

const healthy = { livez: 200, readyz: 200 };
const withoutDatabase = { livez: 200, readyz: 503 };

t.test('F08 I1-I12: restarts of PostgreSQL log nobody out and undo nothing', async (t) => {
  const database = await postgres.createDatabase();
  const client = await createTrafficClient(database);
  const servers = [
    await startServerProcess(t, database.url),
    await startServerProcess(t, database.url),
  ] as const;
  const traffic = await startTraffic(database, servers, client);
  for (let restart = 0; restart < 2; restart++) {
    await delay(500);
    await postgres.stop();
    await traffic.seesTrouble(1);
    await postgres.startAgain();
  }
  await traffic.verify(t);
});

t.test('F14 I1-I12: connections that are all blocked are 503 in time', async (t) => {
  const database = await postgres.createDatabase();
  const client = await createTrafficClient(database);
  const proxy = await startProxy(t, database.url);
  const server = await startServerProcess(t, proxy.url);
  const traffic = await startTraffic(database, [server], client);
  t.strictSame(await health(server), healthy);
  // Those that the server makes meanwhile, too: no timeout of PostgreSQL's own ends a statement.
  const silence = await keepDoing(t, async () => proxy.silence());
  await traffic.seesTrouble(4);
  await untilUnready(server);
  t.equal((await health(server)).livez, 200);
  await silence.end();
  await traffic.verify(t);
});

/** A fault that lasts until it is ended, or the test is. */
interface Trouble {
  end(): Promise<void>;
}

/** Does something again and again, because the server does not give up either, and undoes it at the end. */
async function keepDoing(
  t: Test,
  work: () => Promise<void>,
  undo: () => Promise<void> = async () => {},
): Promise<Trouble> {
  let isOver = false;
  await work();
  const working = (async () => {
    while (!isOver) {
      await work();
      await delay(20);
    }
  })();
  const end = async () => {
    isOver = true;
    await working;
    await undo();
  };
  t.teardown(end);
  return { end };
}

t.test('F15 I1-I12: a PostgreSQL without a free connection is 503, and no start', async (t) => {
  for (const [limit, refusal] of [
    ['of PostgreSQL', /sorry, too many clients already|remaining connection slots are reserved/],
    ['of the role', /too many connections for role/],
  ] as const) {
    await t.test(`limit ${limit}`, async (t) => {
      const database = await postgres.createDatabase();
      const client = await createTrafficClient(database);
      const url = await createRole(database, limit === 'of the role' ? 16 : -1);
      const environment = { MIGRATION_DATABASE_URL: database.url };
      const server = await startServerProcess(t, url, environment);
      const traffic = await startTraffic(database, [server], client);
      const occupation = await occupyAll(t, database, server, url);
      await traffic.seesTrouble(8);
      await untilUnready(server);
      t.equal((await health(server)).livez, 200);
      await t.rejects(startServerProcess(t, url, environment), refusal, 'a start says why');
      await occupation.end();
      await traffic.verify(t);
      t.match(server.output(), refusal, 'and so does the log');
      t.strictSame(await health(server), healthy);
    });
  }
});

/** A role that may do what a running server does, and has none of the connections that are reserved. */
async function createRole(database: TestDatabase, limit: number): Promise<string> {
  const url = new URL(database.url);
  url.username = `app_${url.pathname.slice(1)}`;
  for (const statement of [
    `create role ${url.username} login password '${url.password}' connection limit ${limit}`,
    `grant all on all tables in schema public to ${url.username}`,
    `grant all on all sequences in schema public to ${url.username}`,
  ]) {
    await ask(database, statement);
  }
  return url.href;
}

/** Takes every connection that the role can have, the server's own included. */
async function occupyAll(
  t: Test,
  database: TestDatabase,
  server: ServerProcess,
  url: string,
): Promise<Trouble> {
  const taken: pg.Client[] = [];
  const takeAll = async () => {
    for (;;) {
      const each = new pg.Client({ connectionString: url, application_name: 'occupant' });
      each.on('error', () => {});
      try {
        await each.connect();
      } catch {
        return;
      }
      taken.push(each);
    }
  };
  // The server is as quick to take what it has lost, and a connection has no name before it is made.
  const occupy = async () => {
    await ask(
      database,
      `select pg_terminate_backend(pid) from pg_stat_activity
       where usename = $1 and application_name = 'heirloom'`,
      [new URL(url).username],
    );
    await takeAll();
  };
  const occupation = await keepDoing(t, occupy, async () => {
    await Promise.all(taken.splice(0).map((each) => each.end()));
  });
  await untilUnready(server);
  return occupation;
}

t.test('F27 I1-I12: a database whose name is not found is no verdict', async (t) => {
  const database = await postgres.createDatabase();
  const client = await createTrafficClient(database);
  const names = join(temporaryDirectory(t), 'names');
  const url = new URL(database.url);
  // On this machine and nowhere else: names under `.test` are nobody's (RFC 6761).
  url.hostname = 'database.test';
  const old = await startProxy(t, database.url);
  url.port = new URL(old.url).port;
  await writeFile(names, '127.0.0.1');
  const NODE_OPTIONS = `--import=data:text/javascript,${encodeURIComponent(resolver(names))}`;
  const server = await startServerProcess(t, url.href, { NODE_OPTIONS });
  const traffic = await startTraffic(database, [server], client);
  await writeFile(names, 'ENOTFOUND');
  const { granted } = traffic.ledger.counts;
  await until(() => traffic.ledger.counts.granted > granted + 50);
  t.pass('connections that are open need no name');
  for (const trouble of ['ENOTFOUND', 'EAI_AGAIN', 'silence']) {
    await writeFile(names, trouble);
    old.cut();
    old.restore();
    t.strictSame(await health(server), withoutDatabase, trouble);
    await traffic.seesTrouble(8);
  }
  await writeFile(names, '127.0.0.1');
  await traffic.verify(t);
});

/** What is asked for names answers as a file says. */
const resolver = (names: string) => `
  import dns from 'node:dns';
  import { readFileSync } from 'node:fs';
  const { lookup } = dns;
  dns.lookup = (name, options, done) => {
    if (name !== 'database.test') return lookup(name, options, done);
    const address = readFileSync(${JSON.stringify(names)}, 'utf8');
    if (address === 'silence') return {};
    const isFound = address.includes('.');
    const error = isFound ? null : Object.assign(new Error('getaddrinfo ' + address + ' ' + name), { code: address });
    process.nextTick(() => options.all ? done(error, [{ address, family: 4 }]) : done(error, address, 4));
    return {};
  };`;
