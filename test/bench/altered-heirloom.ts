/** Heirloom with another token store; everything else is the product's own. */
import { buildApp } from '../../src/app.ts';
import { type Config, loadConfig } from '../../src/config.ts';
import { createDependencies, type Dependencies } from '../../src/dependencies.ts';
import { createAuthorizationServer } from '../../src/oauth/authorization-server.ts';
import type { TokenStore } from '../../src/oauth/ports.ts';
import { tuneRuntime } from '../../src/runtime-tuning.ts';
import { uncounted } from '../../src/storage/failure-counters.ts';

/** Serves until SIGTERM, and says where. */
export async function serveWith(
  alter: (dependencies: Dependencies, config: Config) => TokenStore,
): Promise<void> {
  tuneRuntime();
  const config = loadConfig(process.env);
  const dependencies = await createDependencies(config, {
    isMigrating: false,
    notice: console.error,
  });
  const { database, origins } = dependencies;
  const stores = { tokens: alter(dependencies, config), failures: uncounted };
  const app = await buildApp({
    config,
    authorizationServer: createAuthorizationServer(stores, [], { isCookieDeliverySafe: true }),
    origins,
    checkReadiness: () => database.checkConnection(),
  });
  const url = await app.listen({ host: config.host, port: config.port });
  console.log(`heirloom listening on ${url}`);
  process.on('SIGTERM', () => process.exit(0));
}
