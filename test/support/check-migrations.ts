/** Fails when the entities and the migrated schema differ: a change without its migration, or the reverse. */
import { MikroORM } from '@mikro-orm/postgresql';
import { migrate } from '../../src/storage/migrate.ts';
import { ormConfig } from '../../src/storage/orm.ts';
import { administer, joinTestPostgres } from './postgres.ts';

const database = 'heirloom_drift';
const postgres = await joinTestPostgres();
await administer(
  postgres.url('postgres'),
  `drop database if exists ${database} with (force)`,
  `create database ${database}`,
);
const databaseUrl = postgres.url(database);
const applied = await migrate(databaseUrl);
const orm = new MikroORM(
  ormConfig({ databaseUrl, maximumConnections: 2, acquireTimeoutSeconds: 5 }),
);
const difference = await orm.schema.getUpdateSchemaSQL({ wrap: false });
await orm.close(true);
await administer(postgres.url('postgres'), `drop database ${database} with (force)`);
await postgres.stopIfIdle();

console.log(`${applied.length} migration(s) applied to an empty database.`);
if (difference.trim() !== '') {
  console.error(`The entities say something else than the migrations:\n${difference}`);
  process.exitCode = 1;
}
