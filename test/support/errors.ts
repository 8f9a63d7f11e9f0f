/** How a test compares failures: whole, so that an extra member fails. */
import type { Test } from 'tap';
import type { Answer } from './client.ts';

/** RFC 6749 §5.2, with the one description that each code has. */
const refusals = {
  invalid_request: {
    status: 400,
    error_description:
      'The request is missing a parameter, repeats a parameter, or is otherwise malformed.',
  },
  invalid_client: { status: 401, error_description: 'Client authentication failed.' },
  invalid_grant: {
    status: 400,
    error_description:
      'The credentials or the token are invalid, expired, revoked, or were issued to another client.',
  },
  unsupported_grant_type: {
    status: 400,
    error_description: 'This grant type is not supported.',
  },
  invalid_scope: {
    status: 400,
    error_description: 'The requested scope is malformed, unknown, or exceeds what may be granted.',
  },
  access_denied: {
    status: 403,
    error_description: "The request does not come from one of this client's own apps.",
  },
} as const;

/** The protocol refuses: ERR(400 or 401, `code`) of `requirements`. */
export function isRefused(
  t: Test,
  answer: Answer,
  code: keyof typeof refusals,
  why: string = code,
): void {
  const { status, error_description } = refusals[code];
  compare(t, answer, status, { error: code, error_description }, why);
  t.equal(
    answer.headers.get('www-authenticate'),
    status === 401 ? 'Basic realm="heirloom"' : null,
    why,
  );
}

/** HTTP itself refuses, or the server fails: ERR(`status`, `error`) of `requirements`. */
export const hasFailed = (
  t: Test,
  answer: Answer,
  status: number,
  error: string,
  why = `${status} ${error}`,
): void => compare(t, answer, status, { error }, why);

function compare(t: Test, answer: Answer, status: number, body: object, why: string): void {
  t.equal(answer.status, status, why);
  t.strictSame(answer.body, body, why);
  t.equal(answer.headers.get('content-type'), 'application/json; charset=utf-8', why);
  t.equal(answer.headers.get('cache-control'), 'no-store', why);
}
