/** The lock that keeps instances from migrating at once, on a server that limits sessions. */
import { randomBytes } from 'node:crypto';
import t from 'tap';
import { migrate } from '../../src/storage/migrate.ts';
import { administer, joinTestPostgres } from '../support/postgres.ts';

t.test(
  'instances that start together migrate once, whatever ends waits, idle transactions and long statements',
  async (t) => {
    const postgres = await joinTestPostgres();
    const name = `heirloom_test_${randomBytes(6).toString('hex')}`;
    const run = (statement: string) => administer(postgres.url('postgres'), statement);
    await run(`create database ${name}`);
    t.teardown(() => run(`drop database ${name} with (force)`));
    const url = postgres.url(name);
    // A migration that takes longer than a transaction may idle: that of the lock does meanwhile.
    await administer(
      url,
      'create function wait() returns event_trigger language plpgsql as $$ begin perform pg_sleep(4); end $$',
    );
    await administer(
      url,
      `create event trigger wait on ddl_command_start when tag in ('CREATE TYPE') execute function wait()`,
    );
    await run(`alter database ${name} set idle_in_transaction_session_timeout = '3s'`);
    await run(`alter database ${name} set lock_timeout = '20ms'`);
    // As a migration of a large table takes longer than any other statement may.
    await run(`alter database ${name} set statement_timeout = '3s'`);
    const applied = await Promise.all([1, 2, 3].map(() => migrate(url)));
    t.equal(applied.filter((names) => names.length > 0).length, 1);
  },
);
