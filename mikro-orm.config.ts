/** For the mapper's command line, e.g. `npx mikro-orm migration:create --config mikro-orm.config.ts`. */
import { ormConfig } from './src/storage/orm.ts';

export default ormConfig({
  databaseUrl: process.env['DATABASE_URL'] ?? 'postgres://127.0.0.1:5432/heirloom',
  maximumConnections: 2,
  acquireTimeoutSeconds: 5,
});
