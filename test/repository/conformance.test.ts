/** `test/CONFORMANCE.md` and the titles of the tests name the same checks. */
import { globSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { CHECKOUT } from '../support/process.ts';

interface Row {
  readonly id: string;
  readonly source: string;
  readonly behaviour: string;
  readonly test: string;
}

/** A check of section 1 (`SYN-01`) or a fault of section 2 (`F01`). */
const ROW = /^\| (?:[A-Z]{3,4}-|F)\d+ /;
const TITLE = /(?:test|check)\(\s*(['"`])((?:[A-Z]{3,4}-|F)\d+) (.*?)\1\s*,/gs;

const rows: Row[] = readFileSync(join(CHECKOUT, 'test/CONFORMANCE.md'), 'utf8')
  .split('\n')
  .filter((line) => ROW.test(line))
  .map((line) => {
    const [, id = '', source = '', behaviour = '', test = ''] = line
      .split(/(?<!\\)\|/)
      .map((cell) => cell.trim().replaceAll('\\|', '|'));
    return { id, source, behaviour, test };
  });

/** `ID clause: behaviour`, as tests are called, with the file that holds each. */
const titled = globSync('test/**/*.ts', { cwd: CHECKOUT, exclude: ['test/bench/**'] }).flatMap(
  (file) => {
    const source = readFileSync(join(CHECKOUT, file), 'utf8');
    const titles = source.matchAll(TITLE);
    return [...titles].map(([, , id = '', title = '']) => ({ id, title, file }));
  },
);

t.test('every title is in the table, with its clause, its behaviour and its file', async (t) => {
  t.ok(titled.length > 190);
  for (const { id, title, file } of titled) {
    const row = rows.find((each) => each.id === id);
    t.ok(row?.test.includes(`\`${file}\``), `${id} in ${file}`);
    const others = titled.filter((each) => each.id === id);
    const isFirst = others[0]?.title === title;
    if (isFirst) t.equal(title, `${row?.source}: ${row?.behaviour}`, id);
  }
});

t.test('every row has a test that exists, or says why it has none', async (t) => {
  for (const { id, test } of rows) {
    const files = [...test.matchAll(/`(test\/[^`]+)`/g)].map(([, file]) => file);
    if (test.startsWith('—')) {
      t.match(test, /^— \S.{10,}/, `${id} gives its reason`);
      t.notOk(
        titled.some((each) => each.id === id),
        `${id} has a test after all`,
      );
      continue;
    }
    t.not(files.length, 0, id);
    for (const file of files) {
      t.ok(
        titled.some((each) => each.id === id && each.file === file),
        `${id} in ${file}`,
      );
    }
  }
});

t.test('no check is listed twice', async (t) => {
  t.equal(new Set(rows.map(({ id }) => id)).size, rows.length);
});
