/** Every answer that a test sees must be one that the OpenAPI document promises. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';

export type Reference = { $ref?: string };
type Content = Record<string, { schema: Reference; examples?: Record<string, { value: unknown }> }>;
type Response = { headers?: Record<string, unknown>; content?: Content };
type Operation = {
  requestBody?: { content: Content };
  responses: Record<string, Response>;
  security?: Record<string, unknown>[];
};
export type Paths = Record<string, Record<string, Operation>>;

const document = JSON.parse(
  readFileSync(join(import.meta.dirname, '../../openapi/openapi.json'), 'utf8'),
);

export const documentedPaths: Paths = document.paths;

/** @throws Error where there is no reference, or none to a named schema of the document */
export function resolveSchema<Schema>({ $ref }: Reference): Schema {
  const schema = document.components.schemas[$ref?.replace('#/components/schemas/', '') ?? ''];
  if (schema === undefined) throw new Error(`${$ref} is no named schema of the OpenAPI document`);
  return schema;
}

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
