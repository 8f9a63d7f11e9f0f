/** What a container image is built from: `.dockerignore` hides everything but what it names. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { CHECKOUT } from './process.ts';

const isRule = (line: string) => line !== '' && !line.startsWith('#');

/** @throws Error if the first rule does not hide everything, or a later one is not the name of a file or folder */
export function buildContext(): string[] {
  const lines = readFileSync(join(CHECKOUT, '.dockerignore'), 'utf8').split('\n');
  const [first, ...rest] = lines.filter(isRule);
  if (first !== '*') throw new Error('.dockerignore does not begin with *');
  return rest.map((rule) => {
    if (!/^![\w.-]+$/.test(rule)) throw new Error(`.dockerignore has the rule ${rule}`);
    return rule.slice(1);
  });
}
