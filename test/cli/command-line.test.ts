/** Every command, as a process of its own beside a running server. */
import { PassThrough, Readable } from 'node:stream';
import { text } from 'node:stream/consumers';
import t from 'tap';
import { runCommandLine } from '../../src/cli/command-line.ts';
import { version } from '../../src/version.ts';
import { post } from '../support/client.ts';
import { createTestDatabase } from '../support/database.ts';
import { matchEach } from '../support/match.ts';
import { heirloom, LAUNCHER, type RunOptions, run, serve, until } from '../support/process.ts';

const { url: databaseUrl, inspect } = await createTestDatabase(t);
const env = { DATABASE_URL: databaseUrl };
const server = await serve(t, { env });

/** Runs a command with `--json` and reads its one document. */
async function json(words: readonly string[], options: RunOptions = {}) {
  const finished = await heirloom([...words, '--json'], { env, ...options });
  t.equal(finished.code, 0, `${words.join(' ')}: ${finished.stderr}`);
  t.equal(finished.stderr, '');
  return JSON.parse(finished.stdout);
}

const password = 'a phrase that only carol knows';
const login = (username: string, given = password) =>
  post(`${server.url}/token`, {
    grant_type: 'password',
    client_id: 'web',
    username,
    password: given,
  });

t.test(
  'a client is created with every setting, listed, changed and given new secrets',
  async (t) => {
    const settings = [
      ...['--grant', 'password', '--grant', 'refresh_token', '--scope', 'read', '--scope', 'write'],
      ...[
        '--audience',
        'https://api.example',
        '--origin',
        'https://app.example',
        '--delivery',
        'body',
      ],
      ...['--retry-window', '30', '--access-token-lifetime', '600'],
      ...['--refresh-token-idle-lifetime', '3600', '--refresh-token-lifetime', '7200'],
    ];
    const web = await json(['client', 'create', '--id', 'web', '--type', 'public', ...settings]);
    const expected = {
      client_id: 'web',
      client_type: 'public',
      grant_types: ['password', 'refresh_token'],
      scope: 'read write',
      introspection: 'none',
      audience: ['https://api.example'],
      origins: ['https://app.example'],
      delivery: 'body',
      access_token_lifetime: 600,
      refresh_token_idle_lifetime: 3600,
      refresh_token_lifetime: 7200,
      retry_window: 30,
      created_at: /Z$/,
      disabled_at: null,
    };
    t.match(web, expected);
    t.notOk('client_secret' in web, 'a public client has no secret');

    const api = ['client', 'create', '--id', 'api', '--type', 'confidential'];
    const created = await json([...api, '--introspection', 'any']);
    t.match(created.client_secret, /^hcs_/);
    matchEach(t, await json(['client', 'list']), [{ client_id: 'api' }, expected]);

    t.match(
      await json(['client', 'update', 'web', '--scope', 'read', '--retry-window', 'default']),
      {
        ...expected,
        scope: 'read',
        retry_window: null,
      },
    );
    t.match(await json(['client', 'update', 'web', '--scope', 'read', '--scope', 'write']), {
      scope: 'read write',
    });

    const ask = (secret: string) =>
      post(`${server.url}/introspect`, { client_id: 'api', client_secret: secret, token: 'x' });
    const rotated = await json(['client', 'rotate-secret', 'api']);
    t.equal((await ask(created.client_secret)).status, 200, 'the old secret works meanwhile');
    const secrets = () => json(['client', 'secrets', 'api']);
    matchEach(t, await secrets(), [
      { created_at: String, last_used_at: null, expires_at: null },
      { created_at: String, expires_at: String },
    ]);
    t.equal((await ask(rotated.client_secret)).status, 200);
    const isUsed = ({ last_used_at }: { last_used_at: unknown }) =>
      typeof last_used_at === 'string';
    await until(async () => (await secrets()).every(isUsed));
    t.notMatch(JSON.stringify(await secrets()), /hcs_|[0-9a-f]{64}/);
    const again = await json(['client', 'rotate-secret', 'api', '--overlap', '0']);
    t.equal((await ask(created.client_secret)).status, 401);
    t.equal((await ask(rotated.client_secret)).status, 401);
    const left = [{ last_used_at: null, expires_at: null }];
    matchEach(t, await secrets(), left, 'those that have expired are not listed');
    t.equal((await ask(again.client_secret)).status, 200);
    await json(['client', 'disable', 'api']);
    t.equal((await ask(again.client_secret)).status, 401);
    await json(['client', 'enable', 'api']);
    t.equal((await ask(again.client_secret)).status, 200);
  },
);

t.test('what is said twice of a client is stored once', async (t) => {
  const said = {
    grant: 'password',
    scope: 'read',
    audience: 'https://api.example',
    origin: 'https://app.example',
  };
  const twice = Object.entries(said).flatMap(([name, value]) => {
    return [`--${name}`, value, `--${name}`, value];
  });
  const client = await json(['client', 'create', '--id', 'twice', '--type', 'public', ...twice]);
  t.strictSame(
    [client.grant_types, client.scope, client.audience, client.origins],
    [['password'], 'read', ['https://api.example'], ['https://app.example']],
  );
});

t.test('a person is created, disabled, enabled, given another password and deleted', async (t) => {
  const input = `${password}\n`;
  const carol = await json(['user', 'create', 'Carol', '--password-stdin'], { input });
  t.match(carol, { sub: /^[0-9a-f-]{36}$/, username: 'carol', disabled_at: null });
  t.match(await json(['user', 'create', 'dave']), { username: 'dave', has_password: false });
  matchEach(t, await json(['user', 'list']), [{ username: 'carol' }, { username: 'dave' }]);

  const first = await login('carol');
  t.equal(first.status, 200, first.text);
  const refresh = (answer: typeof first) =>
    post(`${server.url}/token`, {
      grant_type: 'refresh_token',
      client_id: 'web',
      refresh_token: answer.body.refresh_token,
    });
  await json(['user', 'disable', 'carol']);
  t.equal((await refresh(first)).status, 400, 'sessions end');
  t.equal((await login('carol')).status, 400);
  await json(['user', 'enable', 'carol']);
  t.equal((await refresh(first)).status, 400, 'and stay ended');

  const second = await login('carol');
  const changed = 'another phrase of carol';
  await json(['user', 'set-password', 'carol', '--password-stdin'], { input: `${changed}\n` });
  t.equal((await refresh(second)).status, 400);
  t.equal((await login('carol')).status, 400);
  const third = await login('carol', changed);
  t.equal(third.status, 200);

  await json(['user', 'delete', 'carol']);
  t.equal((await refresh(third)).status, 400);
  const successor = await json(['user', 'create', 'carol', '--password-stdin'], { input });
  t.not(successor.sub, carol.sub, 'a sub is never given again');
});

t.test(
  'sessions are listed and ended one by one, by person, by client and altogether',
  async (t) => {
    const device = { device_label: 'Carol’s phone' };
    const logins = [];
    for (let index = 0; index < 5; index++) {
      logins.push(
        await post(
          `${server.url}/token`,
          { grant_type: 'password', client_id: 'web', username: 'carol', password, ...device },
          { 'user-agent': `phone/${index}` },
        ),
      );
    }
    const list = () => json(['session', 'list', 'carol']);
    const sessions = await list();
    t.equal(sessions.length, 5);
    t.match(sessions[0], {
      id: /^[0-9a-f-]{36}$/,
      client_id: 'web',
      username: 'carol',
      device_label: 'Carol’s phone',
      user_agent: 'phone/4',
      address: '127.0.0.1',
      scope: 'read write',
    });
    const shown = JSON.stringify(sessions);
    for (const { body } of logins) {
      t.notMatch(shown, body.refresh_token);
      t.notMatch(shown, body.access_token);
    }

    await json(['session', 'revoke', sessions[0].id]);
    t.equal((await list()).length, 4);
    t.match(await json(['session', 'revoke', '--user', 'carol']), { count: 4 });
    t.equal((await list()).length, 0);

    const alive = async (answer: { body: { refresh_token: string } }) =>
      (
        await post(`${server.url}/token`, {
          grant_type: 'refresh_token',
          client_id: 'web',
          refresh_token: answer.body.refresh_token,
        })
      ).status === 200;
    const before = await login('carol');
    await json(['session', 'revoke', '--client', 'web']);
    t.notOk(await alive(before));
    const after = await login('carol');
    t.ok(await alive(after), 'a session that began after the cut-off lives');
    const last = await login('carol');
    await json(['session', 'revoke', '--all']);
    t.notOk(await alive(last));
  },
);

t.test('what a device calls itself commands no terminal', async (t) => {
  // CSI and OSC in eight bits, as a terminal obeys them, and a reversal of what follows.
  const device_label = 'phone\u009b2J\u009d0;title\u009c\u202e';
  const { status } = await post(
    `${server.url}/token`,
    { grant_type: 'password', client_id: 'web', username: 'carol', password, device_label },
    { 'user-agent': 'phone\u009b31m' },
  );
  t.equal(status, 200);
  const { stdout } = await heirloom(['session', 'list', 'carol'], { env });
  t.notMatch(stdout, /[\u007f-\u009f\u202e]/);
  t.match(stdout, 'phone\\u009b2J\\u009d0;title\\u009c\\u202e');
  const { stdout: document } = await heirloom(['session', 'list', 'carol', '--json'], { env });
  t.notMatch(document, /[\u007f-\u009f\u202e]/);
  const [session] = JSON.parse(document);
  t.match(session, { device_label, user_agent: 'phone\u009b31m' }, 'JSON says the same');
});

t.test(
  'prune deletes what is dead for good, and a deleted client’s name is free again then',
  async (t) => {
    await login('carol');
    await json(['client', 'delete', 'web']);
    t.equal((await login('carol')).status, 401, 'at once');
    const again = ['client', 'create', '--id', 'web', '--type', 'public', '--grant', 'password'];
    const taken = await heirloom([...again, '--scope', 'read'], { env });
    t.equal(taken.code, 1);
    t.match(taken.stderr, /^The client_id "web" is taken/);

    // It prunes by itself every minute, and would leave the command nothing to do.
    await server.stop();
    await inspect.query("update token_family set expires_at = now() - interval '1 second'");
    await inspect.query("update client_secret set expires_at = now() - interval '1 second'");
    await inspect.query(
      "insert into security_event (kind, occurred_at) values ('x', now() - interval '91 days')",
    );
    const pruned = await json(['prune']);
    t.ok(pruned.families > 5);
    t.ok(pruned.client_secrets > 0);
    t.match(pruned, { clients: 1, security_events: 1 });
    const left = 'select from token_family union all select from client_secret';
    t.equal((await inspect.query(left)).rowCount, 0, 'no token outlives its family');
    await json([...again, '--scope', 'read']);
  },
);

t.test('every administrative change leaves a row with what was done to whom', async (t) => {
  const { rows } = await inspect.query<{ kind: string; client_id: string; subject: string }>(
    'select kind, client_id, subject from security_event order by id',
  );
  const kinds = new Set(rows.map(({ kind }) => kind));
  const commands = ['client_create', 'client_update', 'client_rotate_secret', 'client_disable'];
  commands.push('client_enable', 'client_delete', 'user_create', 'user_disable', 'user_enable');
  commands.push('user_set_password', 'user_delete', 'session_revoke');
  for (const command of commands) t.ok(kinds.has(`administration_${command}`), command);
  t.ok(rows.every(({ kind, client_id }) => !kind.includes('_client_') || client_id));
  t.ok(rows.every(({ kind, subject }) => !kind.includes('_user_') || subject));
});

t.test('migrate says what it did, and openapi prints the document', async (t) => {
  t.strictSame(await json(['migrate']), { applied: [] });
  t.match(await json(['openapi']), { openapi: '3.1.0', info: { title: 'Heirloom' } });
});

t.test('help is on all commands, on those that begin alike, or on one', async (t) => {
  const names = async (...words: string[]) =>
    (await json(words)).map(({ name }: { name: string }) => name);
  const all = await names('--help');
  for (const name of ['serve', 'openapi', 'migrate', 'client create', 'session revoke'])
    t.ok(all.includes(name), name);
  t.strictSame(await names('help'), all);
  t.strictSame(await names('nonsense', '-h'), all);
  t.strictSame(await names('help', 'session'), ['session list', 'session revoke']);
  t.strictSame(await names('client', 'create', '--id', 'web', '--help'), ['client create']);

  const { stdout, code } = await heirloom(['-h'], { env });
  t.equal(code, 0);
  t.match(stdout, /^ {2}client update ID \[--grant password\|refresh_token\]…/m);
  t.match(stdout, /\[--retry-window SECONDS\]\n {6}Change a client/);
  t.ok(
    stdout.split('\n').every((line) => line.length <= 80),
    'a terminal need not break its lines',
  );
  t.strictSame(await json(['--version']), { version });
});

t.test(
  'wrong usage exits 2, a failure 1, and with --json both are one JSON object on stderr',
  async (t) => {
    const usage = [
      ['nonsense'],
      ['client', 'create', '--id', 'x'],
      ['client', 'create', '--type', 'public'],
      ['client', 'create', '--id', 'x', '--type', 'secret'],
      ['client', 'update'],
      ['client', 'update', 'web', '--nonsense'],
      ['client', 'update', 'web', '--retry-window', '301'],
      ['client', 'update', 'web', '--access-token-lifetime', '-1'],
      ['user', 'set-password', 'carol'],
      ['session', 'revoke'],
      ['session', 'revoke', 'x', '--all'],
      ['serve', '--nonsense'],
    ];
    const misuse = async (words: string[]) => {
      const { code, stdout, stderr } = await heirloom(words, { env });
      t.equal(code, 2, words.join(' '));
      t.equal(stdout, '');
      t.match(stderr, /^[^\n]+\n$/, words.join(' '));
    };
    await Promise.all(usage.map(misuse));
    const failures: [string[], RegExp, string?][] = [
      [['client', 'update', 'nobody', '--scope', 'x'], /^There is no client "nobody"/],
      [['client', 'create', '--id', 'a b', '--type', 'public'], /^A client_id has/],
      [
        ['client', 'create', '--id', 'y', '--type', 'public', '--grant', 'implicit'],
        /^There is no grant/,
      ],
      [
        ['client', 'create', '--id', 'y', '--type', 'public', '--introspection', 'any'],
        /^A public client/,
      ],
      [
        ['client', 'create', '--id', 'y', '--type', 'public', '--origin', 'https://a/'],
        /not an origin/,
      ],
      [
        ['client', 'update', 'web', '--retry-window', '60', '--access-token-lifetime', '60'],
        /^The retry/,
      ],
      [['client', 'rotate-secret', 'web'], /is public/],
      [['user', 'create', 'carol'], /is taken/],
      [['user', 'create', ' carol'], /^A user name has/],
      [['user', 'create', 'erin', '--password-stdin'], /^Not accepted: .*at least 15/, 'short\n'],
      [['user', 'disable', 'nobody'], /^There is no person/],
      [['session', 'revoke', 'not-a-uuid'], /^There is no session/],
      [['session', 'list', 'nobody'], /^There is no person/],
    ];
    const fail = async ([words, reason, input = '']: (typeof failures)[number]) => {
      const { code, stdout, stderr } = await heirloom(words, { env, input });
      t.equal(code, 1, words.join(' '));
      t.equal(stdout, '');
      t.match(stderr, reason);
    };
    await Promise.all(failures.map(fail));
    const { stderr } = await heirloom(['user', 'disable', 'nobody', '--json'], { env });
    t.strictSame(JSON.parse(stderr), { error: 'There is no person "nobody".' });
  },
);

t.test('a person at a terminal is told that a password is waited for', async (t) => {
  const stdin = Object.assign(Readable.from([`${password}\n`]), { isTTY: true });
  const [stdout, stderr] = [new PassThrough(), new PassThrough()];
  const words = ['user', 'create', 'typist', '--password-stdin'];
  t.equal(await runCommandLine(words, { environment: env, stdin, stdout, stderr }), 0);
  t.equal(
    await text(stderr.end()),
    'Reads what you type, in clear, up to Ctrl-D on a line of its own.\n',
  );
});

t.test(
  'output that cannot be written is told in one line, with what to do about a lost secret',
  { skip: process.platform === 'linux' ? false : 'needs /dev/full' },
  async (t) => {
    const toFullDisk = (...words: readonly string[]) =>
      run('sh', ['-c', 'exec "$0" "$@" > /dev/full', process.execPath, LAUNCHER, ...words], {
        env,
      });
    const done = 'The command is done, but its output could not be written (ENOSPC).';
    const remedy = 'heirloom client rotate-secret full makes a new secret.';
    const created = await toFullDisk('client', 'create', '--id', 'full', '--type', 'confidential');
    t.strictSame(created, { code: 1, stdout: '', stderr: `${done} ${remedy}\n` });
    const rotated = await toFullDisk('client', 'rotate-secret', 'full', '--json');
    t.strictSame(JSON.parse(rotated.stderr), { error: `${done} ${remedy}` });
    const listed = await toFullDisk('client', 'list');
    t.strictSame(listed, { code: 1, stdout: '', stderr: `${done}\n` });
  },
);

t.test('a database without tables is named as such', async (t) => {
  const { url } = await createTestDatabase(t, 'template0');
  const { code, stderr } = await heirloom(['user', 'list'], { env: { DATABASE_URL: url } });
  t.equal(code, 1);
  t.equal(stderr, 'The database has no tables yet: run heirloom migrate.\n');
});
