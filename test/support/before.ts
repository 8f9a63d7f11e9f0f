/** Runs once before all test files: a server, and a migrated template database to clone. */
import { migrate } from '../../src/storage/migrate.ts';
import { administer, joinTestPostgres, TEMPLATE_DATABASE } from './postgres.ts';

const postgres = await joinTestPostgres();
await administer(
  postgres.url('postgres'),
  `drop database if exists ${TEMPLATE_DATABASE} with (force)`,
  `create database ${TEMPLATE_DATABASE}`,
);
await migrate(postgres.url(TEMPLATE_DATABASE));
// Leaves the server running for the test files.
process.exit(0);
