/** Every answer that a test sees must be one that the OpenAPI document promises. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

type Response = {
  headers?: Record<string, unknown>;
  content?: Record<string, { example?: unknown }>;
};
type Operation = { responses: Record<string, Response>; security?: Record<string, unknown>[] };
export type Paths = Record<string, Record<string, Operation>>;

export const documentedPaths: Paths = JSON.parse(
  readFileSync(join(import.meta.dirname, '../../openapi/openapi.json'), 'utf8'),
).paths;

/** Headers of HTTP, of Fetch and of every answer, which the document need not repeat. */
const common =
  /^(access-control-.*|cache-control|connection|content-.*|date|keep-alive|pragma|strict-.*|vary|x-content-.*)$/;

/** @throws Error for a status or a header that the document does not list for an operation it has */
export function assertDocumented(
  method: string,
  url: string,
  status: number,
  headers = new Headers(),
): void {
  const { pathname } = new URL(url);
  const operation = documentedPaths[pathname]?.[method.toLowerCase()];
  if (operation === undefined) return;
  const response = operation.responses[status];
  const answer = `${method} ${pathname} answered ${status}`;
  if (response === undefined) throw new Error(`${answer}, which the OpenAPI document lacks`);
  const listed = Object.keys(response.headers ?? {}).map((name) => name.toLowerCase());
  for (const name of headers.keys()) {
    if (common.test(name) || listed.includes(name)) continue;
    throw new Error(`${answer} with ${name}, which the OpenAPI document lacks`);
  }
}
