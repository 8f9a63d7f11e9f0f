/** No hot statement scans a table, whether tables are empty or full when its plan is made. */
import t, { type Test } from 'tap';
import * as background from '../../src/storage/background-statements.ts';
import * as failures from '../../src/storage/failure-statements.ts';
import * as hot from '../../src/storage/hot-statements.ts';
import * as people from '../../src/storage/resource-owner-statements.ts';
import type { Statement } from '../../src/storage/statement.ts';
import { createCast } from '../support/fixtures.ts';
import { seedFamilies } from '../support/seed.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t);
await createCast(server);
const statements: Statement[] = [hot, background, people, failures].flatMap((file) =>
  Object.values(file).filter((each) => typeof each === 'object'),
);

interface Plan {
  readonly 'Node Type': string;
  readonly 'Relation Name'?: string;
  readonly 'Index Name'?: string;
  readonly 'Index Cond'?: string;
  readonly Plans?: readonly Plan[];
}

const nodes = (plan: Plan): Plan[] => [plan, ...(plan.Plans ?? []).flatMap(nodes)];

/** The plan that the product's own connections keep: made without looking at the parameters. */
async function genericPlan({ text }: Statement): Promise<Plan[]> {
  const connection = server.dependencies.database.orm.em.getConnection();
  const [row] = await connection.execute(`explain (generic_plan, format json) ${text}`);
  return nodes(row?.['QUERY PLAN'][0].Plan);
}

async function findNoScans(t: Test): Promise<void> {
  for (const statement of statements) {
    const plan = await genericPlan(statement);
    const scans = plan.filter((node) => node['Node Type'] === 'Seq Scan');
    t.strictSame(
      scans.map((node) => node['Relation Name']),
      [],
      statement.name,
    );
    // Without a condition, an index is only another way to read the whole table.
    const wholes = plan.filter((node) => node['Index Name'] && !node['Index Cond']);
    t.strictSame(
      wholes.map((node) => node['Index Name']),
      [],
      `${statement.name} enters every index by a key`,
    );
    // Entered by their expiry, tables would be walked from end to end.
    const walks = plan.filter((node) => /expires_at/.test(node['Index Name'] ?? ''));
    t.strictSame(
      walks.map((node) => node['Index Name']),
      [],
      statement.name,
    );
    // What a statement's comment promises is what its plan uses.
    for (const node of plan) {
      if (node['Node Type'].includes('Index')) t.match(node['Index Name'], /_(pkey|unique|index)$/);
    }
  }
}

t.test('on empty tables', async (t) => {
  t.ok(statements.length >= 12);
  await findNoScans(t);
});

t.test(
  'on tables that are known to be small, whose plans are kept when they have grown',
  async (t) => {
    await seedFamilies(server, 1, 60);
    await server.inspect.query('analyze');
    await findNoScans(t);
  },
);

t.test('on seeded tables, analyzed or not', async (t) => {
  await seedFamilies(server, 61, 5000);
  await findNoScans(t);
  await server.inspect.query('analyze');
  await findNoScans(t);
});

t.test('a rotation does not search a large table for what was read just now', async (t) => {
  const plan = await genericPlan(hot.rotateStatement);
  const ofFamilies = plan.filter((node) => node['Relation Name'] === 'token_family');
  t.strictSame(
    ofFamilies.map((node) => node['Node Type']),
    // Locks, updates where it locked, and searches for those only that it could not lock.
    ['Tid Scan', 'ModifyTable', 'Tid Scan', 'Index Scan'],
  );
});
