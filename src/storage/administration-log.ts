/** The trail of administrative changes: rows of `security_event`, which no log rotation takes away. */
import type { Database } from './database.ts';
import type { Statement } from './statement.ts';

/** What a change was about; nothing means everything. */
export interface AdministrativeSubject {
  readonly clientId?: string;
  readonly subject?: string;
  readonly familyId?: string;
}

const insertStatement: Statement = {
  name: 'heirloom-record-administration',
  text: 'insert into security_event (kind, client_id, subject, family_id) values ($1, $2, $3, $4)',
};

/** @param command as typed, e.g. `client rotate-secret` */
export async function recordAdministration(
  database: Database,
  command: string,
  { clientId, subject, familyId }: AdministrativeSubject,
): Promise<void> {
  const kind = `administration_${command.replaceAll(/\W/g, '_')}`;
  const values = [kind, clientId ?? null, subject ?? null, familyId ?? null];
  await database.run(insertStatement, values);
}
