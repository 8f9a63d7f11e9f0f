/** The pool ends whatever has become of its connections. */
import t from 'tap';
import { loadConfig } from '../../src/config.ts';
import { openDatabase } from '../../src/storage/database.ts';
import { createTestDatabase } from '../support/database.ts';
import { startProxy } from '../support/proxy.ts';

t.test('after a mapper’s transaction has lost its connection', async (t) => {
  const proxy = await startProxy(t, (await createTestDatabase(t)).url);
  const database = await openDatabase({
    ...loadConfig({}),
    databaseUrl: proxy.url,
    statementTimeoutSeconds: 0.2,
  });
  const transaction = database.orm.em.fork().transactional(async (em) => {
    await em.getConnection().execute('select 1', [], 'all', em.getTransactionContext());
    proxy.cut();
    await em.getConnection().execute('select 1', [], 'all', em.getTransactionContext());
  });
  await t.rejects(transaction);
  await t.resolves(database.close());
});
