import { Migration } from '@mikro-orm/migrations';

/** Access tokens move into the rows of their families: checking one takes one look-up, issuing one a single write. */
export class Migration20261121180000 extends Migration {
  override up(): void {
    // Not for long: whoever comes later waits behind this. If a dump is running, start again when it is done.
    this.addSql(`set local lock_timeout = '3s'`);
    this.addSql(`lock table token_family, access_token in access exclusive mode`);
    this.addSql(`create domain sha256_digest as bytea check (octet_length(value) = 32)`);
    this.addSql(`create type issued_access_token as (
        digest sha256_digest,
        scope text,
        issued_at timestamptz,
        expires_at timestamptz
      )`);
    this.addSql(
      `alter table token_family add column access_tokens issued_access_token[] not null default '{}'`,
    );
    // Only what is good is carried over, which is little: nobody needs the rest to find out that it is dead.
    this.addSql(`update token_family f set access_tokens = live.tokens
      from (
        select a.family_id, (array_agg(
          row(a.digest, a.scope, a.issued_at, a.expires_at)::issued_access_token
          order by a.issued_at desc
        ))[1:16] as tokens
        from access_token a
        where a.expires_at > clock_timestamp() and a.revoked_at is null
        group by a.family_id
      ) live
      where f.id = live.family_id`);
    this.addSql(
      `alter table token_family add constraint token_family_access_tokens check (cardinality(access_tokens) <= 16)`,
    );
    this.addSql(`drop table access_token`);
    // Sixteen tokens fit into a row that stays whole; in pieces elsewhere, each rotation would write them twice.
    this.addSql(`alter table token_family set (toast_tuple_target = 4080)`);
  }
}
