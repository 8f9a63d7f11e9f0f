/** The same small API on three frameworks, guarded by the same package. */
import { createServer, type RequestListener } from 'node:http';
import type { AddressInfo } from 'node:net';
import express from 'express';
import fastify from 'fastify';
import type { Test } from 'tap';
import {
  createTokenGuard,
  resourceServer,
  type TokenGuardOptions,
} from '../../src/resource-server/resource-server.ts';

/** `GET /notes` demands `read`, `POST /notes` demands `write`, `GET /self` any good token. */
export interface Api {
  readonly framework: string;
  readonly url: string;
}

export async function fastifyApi(
  t: Test,
  options: TokenGuardOptions,
  logStream?: { write(line: string): void },
): Promise<Api> {
  const app = fastify({ logger: logStream ? { stream: logStream } : false });
  await app.register(resourceServer, options);
  app.addContentTypeParser(
    'application/x-www-form-urlencoded',
    { parseAs: 'string' },
    (_request, body, done) => done(null, Object.fromEntries(new URLSearchParams(String(body)))),
  );
  app.get('/self', { onRequest: app.requireScope() }, async ({ token }) => ({
    sub: token?.subject,
  }));
  app.get('/notes', { onRequest: app.requireScope('read') }, async () => ['a note']);
  app.post('/notes', { onRequest: app.requireScope('write') }, async () => 'written');
  app.put('/notes', { preHandler: app.requireScope('write') }, async () => 'written');
  const url = await app.listen({ host: '127.0.0.1', port: 0 });
  t.teardown(() => app.close());
  return { framework: 'fastify', url };
}

export async function expressApi(t: Test, options: TokenGuardOptions): Promise<Api> {
  const guard = createTokenGuard(options);
  const app = express();
  app.use(express.urlencoded());
  app.get('/self', guard.requireScope(), (request, response) => {
    response.json({ sub: guard.tokenOf(request).subject });
  });
  app.get('/notes', guard.requireScope('read'), (_request, response) => {
    response.json(['a note']);
  });
  app.post('/notes', guard.requireScope('write'), (_request, response) => {
    response.send('written');
  });
  t.teardown(() => guard.close());
  return { framework: 'express', url: await listen(t, app) };
}

export async function plainApi(t: Test, options: TokenGuardOptions): Promise<Api> {
  const guard = createTokenGuard(options);
  t.teardown(() => guard.close());
  const scopes: Readonly<Record<string, readonly string[]>> = {
    'GET /self': [],
    'GET /notes': ['read'],
    'POST /notes': ['write'],
  };
  const url = await listen(t, (request, response) => {
    const route = `${request.method} ${request.url?.split('?')[0]}`;
    guard.requireScope(...(scopes[route] ?? []))(request, response, () => {
      const body = { 'GET /notes': ['a note'], 'POST /notes': 'written' }[route];
      response.setHeader('content-type', 'application/json');
      response.end(JSON.stringify(body ?? { sub: guard.tokenOf(request).subject }));
    });
  });
  return { framework: 'node:http', url };
}

/** Starts the three. */
export const allApis = (t: Test, options: TokenGuardOptions): Promise<readonly Api[]> =>
  Promise.all([fastifyApi(t, options), expressApi(t, options), plainApi(t, options)]);

/** Listens on a free port until the test ends. */
export async function listen(t: Test, listener: RequestListener): Promise<string> {
  const server = createServer(listener);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  t.teardown(() => {
    server.closeAllConnections();
    server.close();
  });
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

/** What a test compares of an API's answer. */
export async function ask(
  url: string,
  headers: Record<string, string> | [string, string][] = {},
  init: RequestInit = {},
) {
  const response = await fetch(url, { redirect: 'manual', ...init, headers });
  const text = await response.text();
  const isJson = response.headers.get('content-type')?.startsWith('application/json');
  return {
    status: response.status,
    challenge: response.headers.get('www-authenticate'),
    retryAfter: response.headers.get('retry-after'),
    cacheControl: response.headers.get('cache-control'),
    body: isJson ? JSON.parse(text) : text,
  };
}

export const bearer = (token: string) => ({ authorization: `Bearer ${token}` });

/** A refusal as a whole. */
export const refusal = (status: number, error: string, challenge: string | null) => ({
  status,
  challenge,
  retryAfter: null,
  cacheControl: 'no-store',
  body: { error },
});
