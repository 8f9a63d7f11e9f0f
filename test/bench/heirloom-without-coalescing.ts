/**
 * Heirloom with one statement per look-up, sent at once: what a lone request would cost if there were no
 * coalescer to pass through.
 */
import { lookUpStatement } from '../../src/storage/hot-statements.ts';
import {
  type LookUpRow,
  lookUpsFromRows,
  lookUpValues,
  type OrdinalLookUp,
} from '../../src/storage/look-up-rows.ts';
import { serveWith } from './altered-heirloom.ts';

await serveWith(({ database, tokens }, { lifetimes }) => ({
  ...tokens,
  async lookUp(request) {
    const rows = await database.run<LookUpRow>(lookUpStatement, lookUpValues([request]));
    const [answer] = lookUpsFromRows([request], rows, lifetimes);
    return (answer as OrdinalLookUp).lookUp;
  },
}));
