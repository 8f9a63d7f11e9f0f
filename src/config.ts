/** The configuration: environment variables, parsed once, frozen, with units in the names. */
import { isIP } from 'node:net';
import { availableParallelism } from 'node:os';
import { resolve } from 'node:path';
import type { Argon2Parameters } from './crypto/password-hasher.ts';
import type { CookiePath } from './http/refresh-cookie.ts';
import { MAXIMUM_RETRY_WINDOW_SECONDS, type TokenLifetimes } from './oauth/client.ts';
import { parseDatabaseUrl, parseRedisUrl } from './server-urls.ts';
import { StartUpError } from './start-up-error.ts';

export const logLevels = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const;
export type LogLevel = (typeof logLevels)[number];

/** Everything that can be set, and the bounds that cannot. */
export interface Config {
  /** Address to listen on. */
  readonly host: string;
  /** 0 means any free port. */
  readonly port: number;
  /** RFC 8414 issuer, code point for code point; undefined means `http://HOST:PORT` once the port is known. */
  readonly issuer: string | undefined;
  /** Path of the cookie that carries a refresh token; below it browsers send it. */
  readonly cookiePath: CookiePath;
  /** Undefined means the embedded PostgreSQL. */
  readonly databaseUrl: string | undefined;
  /** For migrations only, so that the running role can do without DDL. */
  readonly migrationDatabaseUrl: string | undefined;
  /** Absolute; where the embedded PostgreSQL keeps its data. */
  readonly dataDir: string;
  readonly logLevel: LogLevel;
  /** Processes that share the port. */
  readonly workers: number;
  /** Where instances share the counts of their request limits; undefined: each counts alone. */
  readonly redisUrl: string | undefined;
  /** Whose `X-Forwarded-*` to believe: nobody's, this many hops', or these addresses'. */
  readonly trustProxy: false | number | readonly string[];
  readonly isPasswordGrantOn: boolean;
  readonly areDocsOn: boolean;
  readonly isRateLimitOn: boolean;
  /** For clients that were registered without their own. */
  readonly lifetimes: TokenLifetimes;
  readonly argon2: Argon2Parameters;
  /** Logins that may wait for their password to be hashed, per process; more are shed with 503. */
  readonly hashQueueLimit: number;
  readonly maximumConnections: number;
  /** Connections of their own, for what logins ask before a password is verified. */
  readonly maximumLoginConnections: number;
  /** How long a login waits for each answer on them; then it is answered 503. */
  readonly loginDeadlineSeconds: number;
  /** Most requests that share one statement, see `storage/coalescer.ts`. */
  readonly maximumBatch: number;
  /** Most requests that wait for a statement of one kind; more are shed with 503. */
  readonly maximumWaiting: number;
  /** Most statements of one kind at a time. */
  readonly maximumInFlight: number;
  /** How long a request waits for a database connection. */
  readonly acquireTimeoutSeconds: number;
  readonly statementTimeoutSeconds: number;
  /** How long a statement waits for a row that another one holds. */
  readonly lockTimeoutSeconds: number;
  /** How long a client waits for its answer; then it is told 503, whatever has come of its request. */
  readonly answerDeadlineSeconds: number;
  /** How long a client may take to send a whole request. */
  readonly requestTimeoutSeconds: number;
  readonly keepAliveTimeoutSeconds: number;
  /** Connections of clients, per process; more are not accepted. */
  readonly maximumClientConnections: number;
  /** Larger bodies are refused with 413. */
  readonly bodyLimitBytes: number;
  readonly pruneIntervalSeconds: number;
  readonly pulseIntervalSeconds: number;
  /** How long everything is still answered after SIGTERM, while `/readyz` tells balancers to look elsewhere. */
  readonly shutdownDelaySeconds: number;
  /** How long kept connections are answered that the server is stopping, before idle ones are closed. */
  readonly drainSeconds: number;
  /** How long requests in flight may take to end after SIGTERM. */
  readonly shutdownTimeoutSeconds: number;
}

const TEN_YEARS_SECONDS = 10 * 365 * 24 * 60 * 60;

/**
 * Parses the environment. An empty variable counts as unset.
 *
 * @throws StartUpError with one line about the first value that makes no sense
 */
export function loadConfig(environment: Readonly<Record<string, string | undefined>>): Config {
  const read = (name: string): string | undefined => environment[name] || undefined;
  const host = read('HOST') ?? '127.0.0.1';
  const databaseUrl = parseDatabaseUrl('DATABASE_URL', read('DATABASE_URL'));
  const lifetimes = parseLifetimes(read);
  const config: Config = {
    host,
    port: parseInteger('PORT', read('PORT'), 3000, 0, 65535),
    issuer: parseIssuer(read('ISSUER')),
    cookiePath: parseCookiePath(read('COOKIE_PATH'), read('ISSUER')),
    databaseUrl,
    migrationDatabaseUrl: parseDatabaseUrl(
      'MIGRATION_DATABASE_URL',
      read('MIGRATION_DATABASE_URL'),
    ),
    dataDir: parseDataDir(read('DATA_DIR')),
    logLevel: parseChoice('LOG_LEVEL', read('LOG_LEVEL'), logLevels, 'info'),
    workers: parseWorkers(read('WORKERS')),
    redisUrl: parseRedisUrl(read('REDIS_URL')),
    trustProxy: parseTrustProxy(read('TRUST_PROXY')),
    isPasswordGrantOn: parseSwitch('PASSWORD_GRANT', read('PASSWORD_GRANT'), true),
    areDocsOn: parseSwitch('DOCS', read('DOCS'), databaseUrl === undefined),
    isRateLimitOn: parseSwitch('RATE_LIMIT', read('RATE_LIMIT'), true),
    lifetimes,
    argon2: { memoryKibibytes: 19_456, iterations: 2, parallelism: 1 },
    hashQueueLimit: 128,
    maximumConnections: 10,
    maximumLoginConnections: 2,
    loginDeadlineSeconds: 1,
    maximumBatch: 64,
    maximumWaiting: 4096,
    maximumInFlight: 3,
    acquireTimeoutSeconds: 2,
    statementTimeoutSeconds: 3,
    lockTimeoutSeconds: 1,
    answerDeadlineSeconds: 5,
    requestTimeoutSeconds: 10,
    keepAliveTimeoutSeconds: 72,
    maximumClientConnections: 8192,
    bodyLimitBytes: 16 * 1024,
    pruneIntervalSeconds: 60,
    pulseIntervalSeconds: 5,
    shutdownDelaySeconds: parseInteger('SHUTDOWN_DELAY', read('SHUTDOWN_DELAY'), 0, 0, 300),
    drainSeconds: 0.5,
    shutdownTimeoutSeconds: 15,
  };
  refuseDangerousCombinations(config);
  return Object.freeze(config);
}

/** PostgreSQL writes the path into `postmaster.pid`, one thing a line, and reads nothing from it then. */
function parseDataDir(text = '.data'): string {
  const path = resolve(text);
  if (/[\n\r]/.test(path)) {
    throw new StartUpError(`DATA_DIR must be one line, not ${JSON.stringify(path)}.`);
  }
  return path;
}

/** Tells whether an address or host name stays on this machine. */
export function isLoopback(host: string): boolean {
  const name = host.replace(/^\[(.*)\]$/, '$1').toLowerCase();
  return name === 'localhost' || name === '::1' || (isIP(name) === 4 && name.startsWith('127.'));
}

/** Browsers keep `Secure` cookies of https origins, and of this machine itself. */
export const isCookieDeliverySafe = ({ host, issuer }: Config): boolean =>
  issuer === undefined
    ? isLoopback(host)
    : new URL(issuer).protocol === 'https:' || isLoopback(new URL(issuer).hostname);

/** `0.0.0.0`, `::` and whatever else is all zeros, mapped to IPv6 or not. */
const isWildcard = (host: string): boolean =>
  isIP(host) !== 0 && /^[0:.]+$/.test(host.toLowerCase().replace('ffff', '0'));

/** Numbers that are no address (`0`, `0x0`, `0.0`) would be one to the operating system. */
const isHost = (host: string): boolean =>
  isIP(host) !== 0 || /^[a-z]([a-z0-9.-]*[a-z0-9])?$/i.test(host);

function refuseDangerousCombinations(config: Config): void {
  const { host, issuer, databaseUrl, trustProxy } = config;
  const isPublicIssuer = issuer !== undefined && !isLoopback(new URL(issuer).hostname);
  const isExposed = !isLoopback(host) || isPublicIssuer || trustProxy !== false;
  if (!isHost(host)) {
    throw new StartUpError(`HOST must be an address or a name, not ${JSON.stringify(host)}.`);
  }
  if (isWildcard(host) && issuer === undefined) {
    throw new StartUpError(
      `ISSUER is required when HOST is ${host}: clients need one name for us.`,
    );
  }
  // The embedded database holds demo accounts, whose passwords everybody knows.
  if (databaseUrl === undefined && isExposed) {
    throw new StartUpError(
      'The embedded database with its demo accounts serves this machine only. ' +
        'Set DATABASE_URL, or leave HOST and ISSUER on loopback and TRUST_PROXY unset.',
    );
  }
  if (!config.isRateLimitOn && isExposed) {
    throw new StartUpError(
      'RATE_LIMIT=off is only accepted when HOST and ISSUER are loopback and TRUST_PROXY is unset.',
    );
  }
}

function parseLifetimes(read: (name: string) => string | undefined): TokenLifetimes {
  const seconds = (name: string, fallback: number, minimum = 1, maximum = TEN_YEARS_SECONDS) =>
    parseInteger(name, read(name), fallback, minimum, maximum);
  const accessTokenLifetimeSeconds = seconds('ACCESS_TOKEN_LIFETIME', 900);
  const refreshTokenLifetimeSeconds = seconds('REFRESH_TOKEN_LIFETIME', 2_592_000);
  const refreshTokenIdleLifetimeSeconds = seconds(
    'REFRESH_TOKEN_IDLE_LIFETIME',
    Math.min(604_800, refreshTokenLifetimeSeconds),
  );
  if (refreshTokenIdleLifetimeSeconds > refreshTokenLifetimeSeconds) {
    throw new StartUpError('REFRESH_TOKEN_IDLE_LIFETIME must not exceed REFRESH_TOKEN_LIFETIME.');
  }
  const retryWindowSeconds = seconds(
    'RETRY_WINDOW',
    Math.min(60, accessTokenLifetimeSeconds - 1),
    0,
    MAXIMUM_RETRY_WINDOW_SECONDS,
  );
  if (retryWindowSeconds >= accessTokenLifetimeSeconds) {
    throw new StartUpError('RETRY_WINDOW must be below ACCESS_TOKEN_LIFETIME.');
  }
  return {
    accessTokenLifetimeSeconds,
    refreshTokenIdleLifetimeSeconds,
    refreshTokenLifetimeSeconds,
    retryWindowSeconds,
  };
}

function parseInteger(
  name: string,
  text: string | undefined,
  fallback: number,
  minimum: number,
  maximum: number,
): number {
  if (text === undefined) return fallback;
  const number = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN;
  if (number >= minimum && number <= maximum) return number;
  throw new StartUpError(
    `${name} must be a whole number from ${minimum} to ${maximum}, not ${JSON.stringify(text)}.`,
  );
}

function parseChoice<Choice extends string>(
  name: string,
  text: string | undefined,
  choices: readonly Choice[],
  fallback: Choice,
): Choice {
  if (text === undefined) return fallback;
  const choice = choices.find((each) => each === text);
  if (choice !== undefined) return choice;
  throw new StartUpError(
    `${name} must be one of ${choices.join(', ')}, not ${JSON.stringify(text)}.`,
  );
}

const parseSwitch = (name: string, text: string | undefined, fallback: boolean): boolean =>
  parseChoice(name, text, ['on', 'off'], fallback ? 'on' : 'off') === 'on';

/** The path of the issuer, which a proxy strips; empty where there is none. */
export const issuerPath = (issuer: string | undefined): string =>
  new URL(issuer ?? 'http://localhost').pathname.replace(/\/$/, '');

/** RFC 8414 §2: a URL with neither query nor fragment. http is for loopback and private networks. */
function parseIssuer(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  const isFit =
    url !== undefined &&
    /^https?:$/.test(url.protocol) &&
    /^https?:\/\/[^\s\\?#]+$/.test(text) &&
    url.username === '' &&
    url.password === '';
  if (isFit) return text;
  throw new StartUpError(
    `ISSUER must be an http or https URL without query, fragment or user, not ${JSON.stringify(text)}.`,
  );
}

/**
 * RFC 6265 §5.1.4: a browser sends the cookie to the path and what is below it, as it sees paths, before a
 * proxy has stripped the issuer's.
 */
function parseCookiePath(text = '/', issuer: string | undefined): CookiePath {
  const isPath = (path: string): path is CookiePath => /^\/(?!\/)[\w.~!$&'()*+,=:@/-]*$/.test(path);
  const path = isPath(text) && text !== '/' ? text.replace(/\/$/, '') : text;
  const endpoint = `${issuerPath(issuer)}/token`;
  if (isPath(path) && (path === '/' || endpoint.startsWith(`${path}/`))) return path;
  throw new StartUpError(
    `COOKIE_PATH must be a path that ISSUER's endpoints are below, such as /auth, not ${JSON.stringify(text)}.`,
  );
}

function parseWorkers(text: string | undefined): number {
  if (text === 'auto') return availableParallelism();
  return parseInteger('WORKERS', text, 1, 1, 128);
}

const namedRanges = ['loopback', 'linklocal', 'uniquelocal'];

function parseTrustProxy(text: string | undefined): Config['trustProxy'] {
  if (text === undefined) return false;
  if (/^[1-9]\d?$/.test(text)) return Number(text);
  const ranges = text.split(',').map((each) => each.trim());
  if (ranges.every((range) => namedRanges.includes(range) || isAddressRange(range))) return ranges;
  throw new StartUpError(
    `TRUST_PROXY must be a number of hops or a list of addresses, not ${JSON.stringify(text)}.`,
  );
}

function isAddressRange(text: string): boolean {
  const [address = '', prefix, ...rest] = text.split('/');
  const version = isIP(address);
  if (version === 0 || rest.length > 0) return false;
  return (
    prefix === undefined ||
    (/^[1-9]\d{0,2}$/.test(prefix) && Number(prefix) <= (version === 4 ? 32 : 128))
  );
}
