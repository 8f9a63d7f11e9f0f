/** Runs once after all test files. */
import { joinTestPostgres } from './postgres.ts';

await (await joinTestPostgres()).stopIfIdle();
