/** Every answer that a test sees must be one that the OpenAPI document promises. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

type Operation = { responses: Record<string, unknown>; security?: Record<string, unknown>[] };
export type Paths = Record<string, Record<string, Operation>>;

export const documentedPaths: Paths = JSON.parse(
  readFileSync(join(import.meta.dirname, '../../openapi/openapi.json'), 'utf8'),
).paths;

/** @throws Error for a status that the document does not list for an operation it has */
export function assertDocumented(method: string, url: string, status: number): void {
  const { pathname } = new URL(url);
  const operation = documentedPaths[pathname]?.[method.toLowerCase()];
  if (operation === undefined || String(status) in operation.responses) return;
  throw new Error(`${method} ${pathname} answered ${status}, which the OpenAPI document lacks`);
}
