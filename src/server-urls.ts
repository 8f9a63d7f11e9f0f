/** Where other servers are. A URL may hold a password, so none is ever repeated. */
import { StartUpError } from './start-up-error.ts';

const tlsParameters = ['ssl', 'sslmode', 'sslcert', 'sslkey', 'sslrootcert', 'sslnegotiation'];

/**
 * Checks the URL of a PostgreSQL server.
 *
 * @param name of the setting, for the line that refuses it
 * @throws StartUpError
 */
export function parseDatabaseUrl(name: string, text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  if (url === undefined || !/^postgres(ql)?:$/.test(url.protocol)) {
    throw new StartUpError(`${name} must look like postgres://user:password@host:5432/db.`);
  }
  // Who has misspelt `sslmode`, or says `?ssl` as for Java, would talk in clear.
  if (asksInVainForTls(url, tlsParameters)) {
    throw new StartUpError(
      `${name} has a parameter for TLS that means nothing here. There are ${tlsParameters.join(', ')}, each with a value.`,
    );
  }
  return text;
}

/** Checks the URL of a Redis server. @throws StartUpError */
export function parseRedisUrl(text: string | undefined): string | undefined {
  if (text === undefined) return undefined;
  const url = URL.canParse(text) ? new URL(text) : undefined;
  // Redis refuses a database that is no number only after the start, in a way that would end the process.
  const isFit =
    url !== undefined &&
    /^rediss?:$/.test(url.protocol) &&
    /^(\/\d{0,5})?$/.test(url.pathname) &&
    /^\d{0,5}$/.test(url.searchParams.get('db') ?? '') &&
    // Who says `?ssl=true` would talk in clear.
    !asksInVainForTls(url, ['tls']) &&
    // The driver decodes both, and what cannot be decoded would end the start with a stack.
    isDecodable(`${url.username} ${url.password}`);
  if (isFit) return text;
  throw new StartUpError(
    'REDIS_URL must look like redis://user:password@host:6379/0, with rediss: for TLS.',
  );
}

/** Drivers ignore a parameter that they do not know, or that has no value. */
function asksInVainForTls({ searchParams }: URL, known: readonly string[]): boolean {
  return [...searchParams].some(
    ([parameter, value]) =>
      /ssl|tls/i.test(parameter) && !(known.includes(parameter) && value !== ''),
  );
}

function isDecodable(text: string): boolean {
  try {
    decodeURIComponent(text);
    return true;
  } catch {
    return false;
  }
}
