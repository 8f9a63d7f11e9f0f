/** The committed document is what the running routes say. */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import t from 'tap';
import { version } from '../../src/version.ts';
import { CHECKOUT, heirloom } from '../support/process.ts';
import { startServer } from '../support/server.ts';

const committed = JSON.parse(readFileSync(join(CHECKOUT, 'openapi/openapi.json'), 'utf8'));

t.test('openapi/openapi.json equals what the command and the server give out', async (t) => {
  const { stdout } = await heirloom(['openapi']);
  t.strictSame(JSON.parse(stdout), committed, 'npm run openapi writes it again');
  const server = await startServer(t);
  const response = await fetch(`${server.url}/docs/json`);
  t.strictSame(await response.json(), committed);
});

t.test('the version in code is the version of the package', async (t) => {
  t.equal(version, JSON.parse(readFileSync(join(CHECKOUT, 'package.json'), 'utf8')).version);
});
