/** Token revocation, RFC 7009 §5: countermeasures against whoever guesses tokens. */
import t from 'tap';
import { createCast, login, revoke } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

t.test(
  'REV-19 RFC 7009 §5: more than 1,000 revocations in a minute are refused, and leave no rows',
  async (t) => {
    const server = await startServer(t, { logLevel: 'silent' });
    const cast = await createCast(server);
    const { body } = await login(server, cast.p1);
    const statuses: Record<number, number> = {};
    let refusal: Awaited<ReturnType<typeof revoke>> | undefined;
    for (let batch = 0; batch < 22; batch++) {
      const answers = await Promise.all(
        Array.from({ length: 50 }, (_, index) => revoke(server, cast.p1, `hrt_${batch}-${index}`)),
      );
      for (const answer of answers) {
        statuses[answer.status] = (statuses[answer.status] ?? 0) + 1;
        if (answer.status === 429) refusal = answer;
      }
      // The other limit, by address and second, has tests of its own.
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    t.strictSame(statuses, { 200: 1000, 429: 100 });
    t.strictSame(refusal?.body, { error: 'temporarily_unavailable' });
    t.match(refusal?.headers.get('retry-after'), /^[1-9]\d?$/);
    t.equal((await revoke(server, cast.c1, 'x')).status, 200, 'another client goes on');
    const { rows } = await server.inspect.query(
      'select count(*)::int as families from token_family',
    );
    t.strictSame(rows, [{ families: 1 }]);
    const logout = await revoke(server, cast.p1, body.refresh_token);
    t.equal(logout.status, 200, 'made-up tokens keep nobody from logging out');
  },
);
