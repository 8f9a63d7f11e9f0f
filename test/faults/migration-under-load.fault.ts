/** The schema grows while servers work on it that know nothing of what is new. */
import { setTimeout as delay } from 'node:timers/promises';
import t from 'tap';
import { administer } from '../support/postgres.ts';
import {
  createLoadClient,
  insist,
  introspect,
  keepRefreshing,
  Ledger,
  newest,
  openFamilies,
  openFamily,
  peopleNamed,
  revoke,
  type Target,
  targetsOf,
} from './load.ts';
import { startPostgres, startServerProcess } from './support.ts';
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

/** What an expanding migration may do to tables that requests read or write. */
const EXPANSIONS = [
  ...[
    'token_family',
    'client',
    'client_secret',
    'resource_owner',
    'server_state',
    'security_event',
    'failure_counter',
    'familiar_network',
  ].map((table) => `alter table ${table} add column is_new boolean not null default false`),
  ...['token_family', 'resource_owner'].map(
    (table) => `create index concurrently ${table}_new_index on ${table} (is_new) where is_new`,
  ),
];

t.test(
  'F26 I1-I6, I12: columns and indexes that are added under load fail no request',
  async (t) => {
    const postgres = await startPostgres(t);
    const database = await postgres.createDatabase();
    const keepers = peopleNamed('keeper', 4);
    const client = await createLoadClient(database, [...keepers, 'leaver']);
    const servers = await Promise.all([
      startServerProcess(t, database.url),
      startServerProcess(t, database.url),
    ]);
    let requests = 0;
    const anyServer: Target = () => servers[requests++ % servers.length]?.url;
    const ledger = new Ledger();
    const holders = await openFamilies(ledger, anyServer, client, keepers, 8);
    const constants = await constantsOf(database, holders);

    let isOver = false;
    const dead: string[] = [];
    const comeAndGo = async () => {
      while (!isOver) {
        const leaver = await openFamily(ledger, anyServer, client, 'leaver');
        await insist(ledger, () => revoke(anyServer, client, newest(leaver.refreshTokens)));
        dead.push(...leaver.refreshTokens, ...leaver.accessTokens);
      }
    };
    const keepAsking = async () => {
      for (let n = 0; !isOver; n++) {
        const { accessTokens } = holders[n % holders.length] as (typeof holders)[number];
        await insist(ledger, () => introspect(anyServer, client, newest(accessTokens)));
      }
    };
    const load = [
      keepRefreshing(ledger, database, holders, anyServer, () => isOver),
      comeAndGo(),
      keepAsking(),
    ];
    for (const expansion of EXPANSIONS) {
      await administer(database.url, expansion);
      await delay(100);
    }
    isOver = true;
    await Promise.all(load);

    const { unavailable, unanswered } = ledger.counts;
    t.strictSame({ unavailable, unanswered }, { unavailable: 0, unanswered: 0 });
    const targets = targetsOf(servers);
    await verifyHolders(t, ledger, database, targets, holders);
    t.equal(await findUnexpected(ledger, targets, client, dead, false), 0, 'I3: who left is out');
    t.strictSame(await constantsOf(database, holders), constants, 'I12: nothing else has changed');
    verifyLedger(t, ledger);
    verifyLogs(t, servers.map(({ output }) => output()).join('\n'));
    printFigures(t, {
      'statements of migrations': EXPANSIONS.length,
      ...figuresOf(ledger, holders),
    });
  },
);
