/**
 * A PostgreSQL of our own for checkouts: real binaries, one server per DATA_DIR, shared by every
 * process that uses this directory.
 *
 * Below the base directory (DATA_DIR, see `embedded-place.ts`), `postgresql-18/` holds `cluster/`,
 * `password` and `server.log`. Whoever comes first starts the server and whoever leaves last stops
 * it. An exclusive lock is held while somebody comes or goes; in between, an open connection of each
 * process says that it is there, so that neither a crash nor a SIGKILL leaves a wrong count behind.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { constants } from 'node:fs';
import { open, readFile, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import type { AddressInfo } from 'node:net';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import pg from 'pg';
import lockfile from 'proper-lockfile';
import { StartUpError } from '../start-up-error.ts';
import { createWhole, locateBinaries, prepareBinaries } from './embedded-binaries.ts';
