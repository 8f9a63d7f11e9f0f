/** What the benchmark asks of Heirloom is what Heirloom answers: a run of half an hour would find out late. */
import { randomBytes } from 'node:crypto';
import { hash } from 'argon2';
import pg from 'pg';
import t from 'tap';
import { dialects } from '../bench/dialects.ts';
import { PASSWORD } from '../bench/families.ts';
import { seedHeirloom } from '../bench/seed-heirloom.ts';
import { createMemory, createWorkload, type Scenario } from '../bench/workloads.ts';
import { administer, joinTestPostgres } from '../support/postgres.ts';
import { exchangeOne } from '../support/raw.ts';
import { startServer } from '../support/server.ts';

const FAMILIES = 200;

const postgres = await joinTestPostgres();
const name = `heirloom_test_${randomBytes(6).toString('hex')}`;
const url = postgres.url(name);
const passwordHash = await hash(PASSWORD, { memoryCost: 1024, timeCost: 2 });
await seedHeirloom(postgres.url('postgres'), url, { families: FAMILIES, passwordHash }, () => {});
t.teardown(() => administer(postgres.url('postgres'), `drop database ${name} with (force)`));
const inspect = new pg.Pool({ connectionString: url, max: 1 });
t.teardown(() => inspect.end());
const server = await startServer(t, { database: { url, inspect }, isRateLimitOn: false });

const scenarios: readonly Scenario[] = [
  'introspect-active',
  'introspect-unknown',
  'introspect-revoked',
  'refresh',
  'refresh-window',
  'revoke',
  'login',
];
const memory = createMemory();
for (const scenario of scenarios) {
  t.test(scenario, async (t) => {
    const options = { dialect: dialects.heirloom, families: FAMILIES, round: 0, memory };
    const workload = createWorkload(scenario, options);
    for (let n = 0; n < 3; n++) {
      const order = workload.next();
      if (order === undefined) throw new Error('nothing is left to ask');
      const request = order.request.replace('\r\n', '\r\nconnection: close\r\n');
      const { status, text } = await exchangeOne(server.url, request);
      t.ok(workload.isRight(order, status, text, true), `${status} ${text}`);
      t.notOk(workload.isRight(order, 400, '{"error":"invalid_request"}', true));
    }
  });
}
