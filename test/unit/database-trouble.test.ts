/** What is told of a database that does not answer, and of what is no trouble of its own. */
import { DriverException } from '@mikro-orm/postgresql';
import pg from 'pg';
import t from 'tap';
import { TemporarilyUnavailable } from '../../src/oauth/errors.ts';
import { databaseTroubleOf } from '../../src/storage/database.ts';

const coded = (message: string, code: string) =>
  Object.assign(new pg.DatabaseError(message, message.length, 'error'), { code });
const refused = Object.assign(new Error('connect ECONNREFUSED 127.0.0.1:5432'), {
  code: 'ECONNREFUSED',
  syscall: 'connect',
});
const ended = 'terminating connection due to administrator command';

t.test('trouble with the database is one line, whoever noticed it', async (t) => {
  for (const [error, line] of [
    [new Error('timeout exceeded when trying to connect'), /\(timeout exceeded/],
    [new Error('Connection terminated unexpectedly'), /\(Connection terminated/],
    [new Error('no answer within 4 s'), /\(no answer within 4 s\)$/],
    [refused, /\(connect ECONNREFUSED 127\.0\.0\.1:5432\)$/],
    [new DriverException(refused), /\(connect ECONNREFUSED/],
    [
      new DriverException(coded(`${ended}\nand a second line`, '57P01')),
      /administrator command\)$/,
    ],
    [
      new DriverException(coded('permission denied for table client', '42501')),
      /^database refuses \(permission denied for table client\)$/,
    ],
    [
      new DriverException(coded('relation "client" does not exist', '42P01')),
      /^database refuses \(relation "client" does not exist\)$/,
    ],
    [new TemporarilyUnavailable('database is a standby'), /^database is a standby$/],
    [
      new TemporarilyUnavailable('database does not answer', {
        cause: new AggregateError([refused]),
      }),
      /^database does not answer \(connect ECONNREFUSED/,
    ],
  ] as const) {
    t.match(databaseTroubleOf(error), line);
  }
});

t.test('what is no trouble of the database is not told as such', async (t) => {
  for (const error of [
    new TypeError('x is not a function'),
    new Error('something else'),
    Object.assign(new Error('EISDIR: illegal operation on a directory, read'), { code: 'EISDIR' }),
    new DriverException(coded('syntax error at or near "slect"', '42601')),
    new DriverException(coded('duplicate key value: (secret)', '23505')),
    'a string',
    undefined,
  ]) {
    t.equal(databaseTroubleOf(error), undefined);
  }
});
