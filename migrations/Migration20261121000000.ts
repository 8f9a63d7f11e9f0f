import { Migration } from '@mikro-orm/migrations';

/** Counters of failed credentials, and the networks from which a person usually comes. */
export class Migration20261121000000 extends Migration {
  override up(): void {
    this.addSql(
      `alter table server_state add column name_key uuid not null default gen_random_uuid()`,
    );
    this.addSql(`create table failure_counter (
        key bytea not null,
        failures bigint not null,
        expires_at timestamptz not null,
        throttled_until timestamptz null,
        primary key (key)
      )`);
    this.addSql(
      `alter table failure_counter add constraint failure_counter_key check (octet_length(key) = 17)`,
    );
    this.addSql(`create index failure_counter_expires_at_index on failure_counter (expires_at)`);
    this.addSql(`create table familiar_network (
        resource_owner_id uuid not null,
        network text not null,
        last_login_at timestamptz not null,
        primary key (resource_owner_id, network)
      )`);
    this.addSql(
      `create index familiar_network_last_login_at_index on familiar_network (last_login_at)`,
    );
    this.addSql(
      `alter table familiar_network add constraint familiar_network_resource_owner_id_foreign foreign key (resource_owner_id) references resource_owner (id) on delete cascade`,
    );
    // Rows live for minutes: room for their next version keeps the table from growing under an attack.
    this.addSql(`alter table failure_counter set (fillfactor = 70)`);
  }
}
