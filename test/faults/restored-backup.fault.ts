/** A backup is restored, and whoever runs the server does what SECURITY.md says. */
import t, { type Test } from 'tap';
import type { Answer } from '../support/client.ts';
import { invalidGrantBody } from '../support/fixtures.ts';
import { administer } from '../support/postgres.ts';
import { heirloom } from '../support/process.ts';
import { createLoadClient, Ledger, login, type Reply, refresh, revoke } from './load.ts';
import { type ServerProcess, startPostgres, startServerProcess } from './support.ts';
import { findUnexpected, verifyLogs } from './verify.ts';

t.setTimeout(120_000);

const granted = async (t: Test, reply: Promise<Reply>): Promise<Answer['body']> => {
  const answer = (await reply) as Answer;
  t.equal(answer.status, 200);
  return answer.body;
};

/** One server on a database, for as long as the work takes; answers what it wrote. */
async function whileServing(
  t: Test,
  databaseUrl: string,
  work: (server: ServerProcess) => Promise<void>,
): Promise<string> {
  const server = await startServerProcess(t, databaseUrl);
  await work(server);
  await server.kill();
  return server.output();
}

t.test(
  'F23 I3: after a backup is restored and all is cut off, no token is good that was before',
  async (t) => {
    const postgres = await startPostgres(t);
    const database = await postgres.createDatabase();
    const { url } = database;
    const client = await createLoadClient(database, ['alice']);
    const tokens: string[] = [];
    /** Notes all tokens that anybody is given. */
    const noted = async (reply: Promise<Reply>): Promise<Answer['body']> => {
      const body = await granted(t, reply);
      tokens.push(body.access_token, body.refresh_token);
      return body;
    };

    const sessions: Answer['body'][] = [];
    await whileServing(t, url, async (server) => {
      for (let n = 0; n < 5; n++)
        sessions.push(await noted(login(() => server.url, client, 'alice')));
    });
    const backup = new URL(url);
    backup.pathname = '/backup';
    await administer(
      new URL('/postgres', url).href,
      `create database backup template ${new URL(url).pathname.slice(1)}`,
    );

    const [, loggedOut, rotated, replayed, shortened] = sessions;
    await whileServing(t, url, async (server) => {
      const target = () => server.url;
      await noted(login(target, client, 'alice'));
      t.equal((await revoke(target, client, loggedOut.refresh_token)).status, 200);
      t.equal((await revoke(target, client, shortened.access_token)).status, 200);
      await noted(refresh(target, client, rotated.refresh_token));
      const next = await noted(refresh(target, client, replayed.refresh_token));
      await noted(refresh(target, client, next.refresh_token));
      t.equal((await refresh(target, client, replayed.refresh_token)).status, 400, 'a replay');
    });

    const command = await heirloom(['session', 'revoke', '--all'], {
      env: { DATABASE_URL: backup.href },
    });
    t.match(command, { code: 0, stdout: 'Ended all sessions.\n' });
    const output = await whileServing(t, backup.href, async (server) => {
      const target = () => server.url;
      const alive = await findUnexpected(new Ledger(), [target], client, tokens, false);
      t.equal(alive, 0, 'I3: no token of before or after the backup is active');
      for (const token of tokens.filter((each) => each.startsWith('hrt_'))) {
        t.match(await refresh(target, client, token), { status: 400, body: invalidGrantBody });
      }
      const again = await granted(t, login(target, client, 'alice'));
      const own = [again.access_token, again.refresh_token];
      t.equal(await findUnexpected(new Ledger(), [target], client, own, true), 0, 'logins work');
    });
    verifyLogs(t, output);
  },
);
