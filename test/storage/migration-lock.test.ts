/** The lock that keeps instances from migrating at once, on a server that limits sessions. */
import t from 'tap';
import { migrate } from '../../src/storage/migrate.ts';
import { createTestDatabase } from '../support/database.ts';
import { administer } from '../support/postgres.ts';

t.test(
  'instances that start together migrate once, whatever ends waits, idle transactions and long statements',
  async (t) => {
    const { url } = await createTestDatabase(t, 'template0');
    const name = new URL(url).pathname.slice(1);
    // A migration that takes longer than a transaction may idle: that of the lock does meanwhile.
    await administer(
      url,
      'create function wait() returns event_trigger language plpgsql as $$ begin perform pg_sleep(4); end $$',
    );
    await administer(
      url,
      `create event trigger wait on ddl_command_start when tag in ('CREATE TYPE') execute function wait()`,
    );
    await administer(url, `alter database ${name} set idle_in_transaction_session_timeout = '3s'`);
    await administer(url, `alter database ${name} set lock_timeout = '20ms'`);
    // As a migration of a large table takes longer than any other statement may.
    await administer(url, `alter database ${name} set statement_timeout = '3s'`);
    const applied = await Promise.all([1, 2, 3].map(() => migrate(url)));
    t.equal(applied.filter((names) => names.length > 0).length, 1);
  },
);
