/**
 * Heirloom with one statement per look-up, sent at once: what a lone request would cost if there were no
 * coalescer to pass through. Everything else is the product's own.
 */

import { buildApp } from '../../src/app.ts';
import { loadConfig } from '../../src/config.ts';
import { createDependencies } from '../../src/dependencies.ts';
import { createAuthorizationServer } from '../../src/oauth/authorization-server.ts';
import type { TokenStore } from '../../src/oauth/ports.ts';
import { uncounted } from '../../src/storage/failure-counters.ts';
import { lookUpStatement } from '../../src/storage/hot-statements.ts';
import {
  type LookUpRow,
  lookUpsFromRows,
  lookUpValues,
  type OrdinalLookUp,
} from '../../src/storage/look-up-rows.ts';

const config = loadConfig(process.env);
const { database, tokens, origins } = await createDependencies(config, {
  isMigrating: false,
  notice: console.error,
});
const direct: TokenStore = {
  ...tokens,
  async lookUp(request) {
    const rows = await database.run<LookUpRow>(lookUpStatement, lookUpValues([request]));
    const [answer] = lookUpsFromRows([request], rows, config.lifetimes);
    return (answer as OrdinalLookUp).lookUp;
  },
};
const app = await buildApp({
  config,
  authorizationServer: createAuthorizationServer({ tokens: direct, failures: uncounted }, [], {
    isCookieDeliverySafe: true,
  }),
  origins,
  checkReadiness: () => database.checkConnection(),
});
console.log(`heirloom listening on ${await app.listen({ host: config.host, port: config.port })}`);
process.on('SIGTERM', () => process.exit(0));
