import { Migration } from '@mikro-orm/migrations';

/** The whole data model: clients, people, token families and their access tokens. */
export class Migration20261120000000 extends Migration {
  override up(): void {
    this.addSql(`create table client (
        key serial primary key,
        client_id text not null,
        client_type text not null,
        grant_types text[] not null,
        scope text[] not null,
        introspection_right text not null,
        audience text[] not null,
        origins text[] not null,
        delivery text not null,
        access_token_lifetime_seconds int null,
        refresh_token_idle_lifetime_seconds int null,
        refresh_token_lifetime_seconds int null,
        retry_window_seconds int null,
        created_at timestamptz not null default clock_timestamp(),
        disabled_at timestamptz null,
        sessions_valid_after timestamptz null,
        deleted_at timestamptz null,
        is_demo boolean not null default false
      )`);
    this.addSql(`alter table client add constraint client_client_id_unique unique (client_id)`);
    this.addSql(
      `alter table client add constraint client_client_type check (client_type in ('confidential', 'public'))`,
    );
    this.addSql(
      `alter table client add constraint client_introspection check (introspection_right in ('none', 'own', 'any'))`,
    );
    this.addSql(
      `alter table client add constraint client_delivery check (delivery in ('body', 'cookie'))`,
    );
    this.addSql(
      `alter table client add constraint client_retry_window check (retry_window_seconds >= 0 and retry_window_seconds <= 300)`,
    );
    this.addSql(
      `alter table client add constraint client_public_introspects_nothing check (client_type = 'confidential' or introspection_right = 'none')`,
    );
    this.addSql(`create table client_secret (
        client_key int not null,
        digest bytea not null,
        created_at timestamptz not null default clock_timestamp(),
        expires_at timestamptz null,
        last_used_at timestamptz null,
        primary key (client_key, digest)
      )`);
    this.addSql(
      `alter table client_secret add constraint client_secret_digest check (octet_length(digest) = 32)`,
    );
    this.addSql(`create table resource_owner (
        id uuid not null default gen_random_uuid(),
        username text not null,
        password_hash text null,
        credential_version int not null default 0,
        created_at timestamptz not null default clock_timestamp(),
        disabled_at timestamptz null,
        is_demo boolean not null default false,
        primary key (id)
      )`);
    this.addSql(
      `alter table resource_owner add constraint resource_owner_username_unique unique (username)`,
    );
    this.addSql(`create table security_event (
        id bigserial primary key,
        occurred_at timestamptz not null default clock_timestamp(),
        kind text not null,
        family_id uuid null,
        client_id text null,
        subject uuid null,
        address text null,
        family_address text null
      )`);
    this.addSql(`create index security_event_occurred_at_index on security_event (occurred_at)`);
    this.addSql(`create table server_state (
        id int not null,
        sessions_valid_after timestamptz null,
        pulse_at timestamptz not null default clock_timestamp(),
        outage_began_at timestamptz null,
        resumed_at timestamptz null,
        primary key (id)
      )`);
    this.addSql(`alter table server_state add constraint server_state_one_row check (id = 1)`);
    this.addSql(
      `alter table server_state add constraint server_state_outage check (num_nulls(outage_began_at, resumed_at) in (0, 2))`,
    );
    this.addSql(`create table token_family (
        id uuid not null,
        lineage_digest bytea null,
        generation int not null default 0,
        current_digest bytea null,
        previous_digest bytea null,
        successor_salt bytea null,
        rotated_at timestamptz null,
        retry_until timestamptz null,
        client_key int not null,
        resource_owner_id uuid null,
        scope text not null,
        audience text[] not null,
        started_at timestamptz not null,
        idle_expires_at timestamptz not null,
        expires_at timestamptz not null,
        revoked_at timestamptz null,
        revocation_reason text null,
        device_label text null,
        user_agent text null,
        address text null,
        primary key (id)
      )`);
    this.addSql(
      `create index token_family_resource_owner_id_started_at_index on token_family (resource_owner_id, started_at)`,
    );
    this.addSql(`create index token_family_client_key_index on token_family (client_key)`);
    this.addSql(`create index token_family_expires_at_index on token_family (expires_at)`);
    this.addSql(
      `alter table token_family add constraint token_family_lineage check (num_nulls(lineage_digest, current_digest) in (0, 2))`,
    );
    this.addSql(
      `alter table token_family add constraint token_family_rotation check (num_nulls(previous_digest, successor_salt, rotated_at, retry_until) = case when generation = 0 then 4 else 0 end)`,
    );
    this.addSql(
      `alter table token_family add constraint token_family_revocation check (num_nulls(revoked_at, revocation_reason) in (0, 2))`,
    );
    this.addSql(`create table access_token (
        family_id uuid not null,
        digest bytea not null,
        scope text not null,
        issued_at timestamptz not null,
        expires_at timestamptz not null,
        revoked_at timestamptz null,
        primary key (family_id, digest)
      )`);
    this.addSql(`create index access_token_expires_at_index on access_token (expires_at)`);
    this.addSql(
      `alter table access_token add constraint access_token_digest check (octet_length(digest) = 32)`,
    );
    this.addSql(
      `alter table client_secret add constraint client_secret_client_key_foreign foreign key (client_key) references client (key) on delete cascade`,
    );
    this.addSql(
      `alter table token_family add constraint token_family_client_key_foreign foreign key (client_key) references client (key) on delete no action`,
    );
    this.addSql(
      `alter table token_family add constraint token_family_resource_owner_id_foreign foreign key (resource_owner_id) references resource_owner (id) on delete cascade`,
    );
    this.addSql(
      `alter table access_token add constraint access_token_family_id_foreign foreign key (family_id) references token_family (id) on delete cascade`,
    );
    this.#addStorageParameters();
    this.addSql(`insert into server_state (id) values (1)`);
  }

  #addStorageParameters(): void {
    // Room in each page keeps the new version of a rotated row beside the old one: a heap-only update.
    this.addSql(`alter table token_family set (fillfactor = 70)`);
    this.addSql(`alter table access_token set (fillfactor = 90)`);
    // One row that every instance updates every few seconds.
    this.addSql(`alter table server_state set (fillfactor = 10)`);
  }
}
