/**
 * `heirloom/resource-server`: guards an API by asking the authorization server about every token.
 *
 * The default export is a Fastify plugin; `createTokenGuard` serves Express, `node:http` and the rest.
 */
export type { Refusal } from './bearer.ts';
export type { IntrospectionCacheOptions } from './introspection-cache.ts';
export { resourceServer, resourceServer as default, type TokenHook } from './plugin.ts';
export {
  type Access,
  createTokenGuard,
  type GuardedRequest,
  type GuardProblem,
  type Middleware,
  sendRefusal,
  type TokenGuard,
  type TokenGuardOptions,
  type VerifiedToken,
} from './token-guard.ts';
