/** What `heirloom-without-coalescing.ts` is compared with: all the same, and asked the same, but for the coalescer. */
import { serveWith } from './altered-heirloom.ts';

await serveWith(({ tokens }) => tokens);
