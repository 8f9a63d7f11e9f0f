import { Migration } from '@mikro-orm/migrations';

/** What checking a token costs: a small index in place of every person's row, and no check per token issued. */
export class Migration20261121120000 extends Migration {
  override up(): void {
    // Both at once and in the order of every other statement, so that nobody waits in a circle. Not for
    // long: whoever comes later waits behind this. If a dump is running, start again when it is done.
    this.addSql(`set local lock_timeout = '3s'`);
    this.addSql(`lock table token_family, access_token in access exclusive mode`);
    this.addSql(
      `create index resource_owner_disabled_index on resource_owner (id) where disabled_at is not null`,
    );
    // Tokens are issued by selecting from families that the same statement has locked. One without its
    // family is dead like any token of a dead one, and is pruned when it expires.
    this.addSql(`alter table access_token drop constraint access_token_family_id_foreign`);
  }
}
