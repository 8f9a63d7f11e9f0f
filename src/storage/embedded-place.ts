/** As whom the embedded PostgreSQL runs, and which directory holds its files. */
import { execFile } from 'node:child_process';
import { createHash } from 'node:crypto';
import { access, chmod, lchown, lstat, mkdir, readFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { StartUpError } from '../start-up-error.ts';

/** Holds the directories of servers whose DATA_DIR is closed to the user they run as. */
const systemDir = '/var/lib/heirloom';

/** The directory below the base directory that holds cluster, password and log. */
export const serverDirName = 'postgresql-18';

/** A user other than the one of this process. */
export interface ServerUser {
  name: string;
  uid: number;
  gid: number;
}

/** The directory that holds everything of one embedded server, and the user it runs as. */
export interface ServerPlace {
  baseDir: string;
  /** Undefined: the user of this process. */
  user: ServerUser | undefined;
}

/**
 * Decides as whom the server runs and where its files live, and creates that directory.
 *
 * An ordinary user keeps them in `dataDir`. Root may not run PostgreSQL, so there another user does,
 * and where that user cannot reach `dataDir` the files live below `/var/lib/heirloom`. A cluster that
 * exists decides first: nobody shall meet an empty database because a permission has changed.
 *
 * @param notice told when the files are not in `dataDir`
 */
export async function chooseServerPlace(
  dataDir: string,
  notice: (line: string) => void,
): Promise<ServerPlace> {
  if (process.getuid?.() !== 0) {
    await createDir(dataDir, 0o700);
    return { baseDir: dataDir, user: undefined };
  }
  const pathDigest = createHash('sha256').update(dataDir).digest('hex').slice(0, 16);
  const substituteDir = join(systemDir, pathDigest);
  const owner = await clusterOwner(dataDir);
  const substituteOwner = owner ? undefined : await clusterOwner(substituteDir);
  const user = owner ?? substituteOwner ?? (await defaultServerUser());
  const isReachable = await canEnter(await nearestExisting(dataDir), user);

  if (!isReachable) await refuseWithoutServerUser(user);
  if (owner && !isReachable) {
    throw new StartUpError(
      `The database in ${dataDir} belongs to user ${user.name}, who cannot reach it. ` +
        'Let that user pass the directories above it, or set another DATA_DIR.',
    );
  }
  if (isReachable && !substituteOwner) {
    await createDir(dataDir, 0o755);
    return { baseDir: dataDir, user };
  }
  await createDir(substituteDir, 0o755);
  if (!(await canEnter(substituteDir, user))) {
    throw new StartUpError(
      `PostgreSQL has to run as user ${user.name}, who can reach neither ${dataDir} nor ` +
        `${substituteDir}. Set another DATA_DIR, or start as an ordinary user.`,
    );
  }
  const reason = isReachable ? 'it was created there' : `user ${user.name} cannot reach ${dataDir}`;
  notice(`The embedded database is in ${substituteDir}, because ${reason}.`);
  return { baseDir: substituteDir, user };
}

/** Root beside an ordinary user's server, or after one, has to leave the files to that user. */
async function clusterOwner(baseDir: string): Promise<ServerUser | undefined> {
  try {
    const { uid, gid } = await lstat(join(baseDir, serverDirName));
    if (uid === 0) return undefined;
    const account = (await accounts()).find((candidate) => candidate.uid === uid);
    return { name: account?.name ?? String(uid), uid, gid };
  } catch {
    return undefined;
  }
}

async function defaultServerUser(): Promise<ServerUser> {
  const known = await accounts();
  const user =
    known.find(({ name }) => name === 'postgres') ?? known.find(({ name }) => name === 'nobody');
  if (user) return user;
  throw new StartUpError(
    'PostgreSQL refuses to run as root, and there is no user postgres or nobody to run it as. ' +
      'Start as an ordinary user, or set DATABASE_URL=postgres://user:password@host:5432/db.',
  );
}

/**
 * A container's root may be nobody else: without the capability, or in a namespace that knows one user only.
 *
 * @throws StartUpError
 */
async function refuseWithoutServerUser(user: ServerUser): Promise<void> {
  const { succeeded, output } = await runProgram('/bin/sh', ['-c', ':'], user);
  if (succeeded) return;
  throw new StartUpError(
    `PostgreSQL refuses to run as root, and nothing can be run as user ${user.name} here (${output}). ` +
      'Start as an ordinary user, or set DATABASE_URL=postgres://user:password@host:5432/db.',
  );
}

async function accounts(): Promise<ServerUser[]> {
  const lines = (await readFile('/etc/passwd', 'utf8')).split('\n');
  return lines.flatMap((line) => {
    const [name, , uid, gid] = line.split(':');
    // macOS writes the ids of nobody as -2; the owner of a file is unsigned.
    return name && uid && gid ? [{ name, uid: Number(uid) >>> 0, gid: Number(gid) >>> 0 }] : [];
  });
}

/**
 * Creates a directory with its parents; one that exists stays as it is. As root they remain root's:
 * if the server user could exchange entries there, root's next start could be led astray by links.
 */
async function createDir(dir: string, mode: number): Promise<void> {
  if ((await nearestExisting(dir)) === dir) return;
  await createDir(dirname(dir), mode);
  // Level by level: Node's own recursion never ends where /proc calls its refusal ENOENT.
  const isCreated = await mkdir(dir, { mode }).then(
    () => true,
    async (error) => {
      // Another start may have been faster. A link to nowhere, say, is in the way.
      if ((await nearestExisting(dir)) !== dir) throw error;
      return false;
    },
  );
  // A strict umask would close it to the server user.
  if (isCreated) await chmod(dir, mode);
}

async function canEnter(dir: string, user: ServerUser): Promise<boolean> {
  return (await runProgram('/bin/sh', ['-c', 'cd -- "$1"', 'sh', dir], user)).succeeded;
}

async function nearestExisting(dir: string): Promise<string> {
  return access(`${dir}/.`).then(
    () => dir,
    (error) => {
      if (error.code !== 'ENOENT') throw error;
      return nearestExisting(dirname(dir));
    },
  );
}

/** Makes the server user the owner of a file that this process has created. */
export async function giveTo(user: ServerUser | undefined, path: string): Promise<void> {
  if (user) await lchown(path, user.uid, user.gid);
}

/** Spawn options for the server user, with nothing from the environment of this process. */
export function programOptions(user: ServerUser | undefined) {
  return {
    // The directory of this process may be out of the server user's reach.
    cwd: '/',
    env: { PATH: '/usr/bin:/bin:/usr/sbin:/sbin', LC_ALL: 'C', TZ: 'UTC' },
    // Unlike chown, spawn takes signed ids.
    ...(user && { uid: user.uid | 0, gid: user.gid | 0 }),
  };
}

/** Runs a program to its end; `output` is what it said, or why it could not be run. */
export function runProgram(
  file: string,
  args: readonly string[],
  user: ServerUser | undefined,
): Promise<{ succeeded: boolean; output: string }> {
  const options = { ...programOptions(user), timeout: 120_000 };
  return new Promise((resolve) => {
    const answer = (error: Error | null, stdout = '', stderr = '') =>
      resolve({
        succeeded: error === null,
        output: `${stdout}${stderr}`.trim() || (error?.message ?? ''),
      });
    try {
      execFile(file, args, options, answer);
    } catch (error) {
      // A user that the kernel does not know here is refused at once.
      answer(error as Error);
    }
  });
}
