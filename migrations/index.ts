/**
 * All migrations, oldest first. Forward only: expand, backfill, contract; there is no way down.
 *
 * A list in code and not a folder to search, so that a compiled and packed install has every one.
 */
import { Migration20261120000000 } from './Migration20261120000000.ts';
import { Migration20261121000000 } from './Migration20261121000000.ts';
import { Migration20261121120000 } from './Migration20261121120000.ts';
import { Migration20261121180000 } from './Migration20261121180000.ts';

export const migrations = [
  { name: 'Migration20261120000000', class: Migration20261120000000 },
  { name: 'Migration20261121000000', class: Migration20261121000000 },
  { name: 'Migration20261121120000', class: Migration20261121120000 },
  { name: 'Migration20261121180000', class: Migration20261121180000 },
];
