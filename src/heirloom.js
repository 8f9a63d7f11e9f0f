#!/usr/bin/env node
// Plain JavaScript that any Node can read, so that one which is too old gets a sentence and not a stack.

import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';

/** In a checkout Node itself strips the types, which it can do since 22.18; a packed install is compiled. */
const isCompiled = !existsSync(new URL('main.ts', import.meta.url));
const needed = isCompiled ? [20, 19] : [22, 18];
const [major, minor] = process.versions.node.split('.').map(Number);

if (major < needed[0] || (major === needed[0] && minor < needed[1])) {
  process.stderr.write(
    `Node ${process.versions.node} is too old: ${needed.join('.')} or newer is needed.\n`,
  );
  process.exitCode = 1;
} else if (major < 22 && !isArgon2Compiled()) {
  process.stderr.write(
    `Node ${process.versions.node} needs argon2 compiled for it. ` +
      'Run "npm rebuild argon2" with it, allow its install script (pnpm: approve-builds), or use Node 22.18 or newer.\n',
  );
  process.exitCode = 1;
} else {
  await import('./main.ts');
}

/** The binary that argon2 brings crashes older Nodes without a word; package managers may skip the compiling. */
function isArgon2Compiled() {
  const entry = createRequire(import.meta.url).resolve('argon2');
  return existsSync(join(dirname(entry), 'build/Release/argon2.node'));
}
