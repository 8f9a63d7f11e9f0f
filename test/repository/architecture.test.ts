/** The house rules that no linter knows. Import directions are in biome.json. */
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { migrations } from '../../migrations/index.ts';
import { CHECKOUT } from '../support/process.ts';

const files = (pattern: string) =>
  globSync(pattern, { cwd: CHECKOUT, exclude: ['**/node_modules'] });
const read = (file: string) => readFileSync(join(CHECKOUT, file), 'utf8');

t.test('no file is longer than a person can keep in mind', async (t) => {
  const limits = { 'src/**/*.{ts,js}': 350, 'test/**/*.ts': 550 };
  for (const [pattern, limit] of Object.entries(limits)) {
    for (const file of files(pattern)) {
      const lines = read(file).split('\n').length;
      t.ok(lines <= limit, `${file} has ${lines} lines`);
    }
  }
});

t.test('oauth/ imports node:crypto, node:zlib and itself', async (t) => {
  const isOwn = (file: string, from: string) =>
    from.startsWith('.') && join(file, '..', from).startsWith('src/oauth/');
  for (const file of files('src/oauth/**/*.ts')) {
    for (const [, from = ''] of read(file).matchAll(/from '([^']+)'/g)) {
      const isAllowed = isOwn(file, from) || ['node:crypto', 'node:zlib'].includes(from);
      t.ok(isAllowed, `${file} imports ${from}`);
    }
  }
});

t.test('every file of oauth/ says what it is, and comments cite RFCs in one form', async (t) => {
  for (const file of files('src/oauth/**/*.ts')) t.match(read(file), /^\/\*\*/, file);
  for (const file of files('src/**/*.ts')) {
    const comments = read(file).match(/^\s*(\*|\/\/|\/\*).*$/gm) ?? [];
    t.notMatch(comments.join('\n'), /RFC\d|rfc \d|RFC \d+,? [Ss]ection/, file);
  }
});

t.test('every migration in the folder is in the list, in order', async (t) => {
  const names = files('migrations/Migration*.ts').map((file) => file.replace(/^.*\/|\.ts$/g, ''));
  t.strictSame(
    migrations.map(({ name }) => name),
    names.sort(),
  );
  for (const { name, class: migration } of migrations) t.equal(migration.name, name);
});
