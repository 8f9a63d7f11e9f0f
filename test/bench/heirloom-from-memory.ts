/**
 * Heirloom that reads one token and answers every other question with the same: what is left when the
 * database costs nothing. No server that asks one can be faster, so it shows how far coalescing may get.
 */
import type { LookUp } from '../../src/oauth/ports.ts';
import { serveWith } from './altered-heirloom.ts';

await serveWith(({ tokens }) => {
  let remembered: LookUp | undefined;
  return {
    ...tokens,
    async lookUp(request) {
      remembered ??= await tokens.lookUp(request);
      return remembered;
    },
  };
});
