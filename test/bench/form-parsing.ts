/** How our strict form parser compares with @fastify/formbody's on ordinary bodies: `npm run bench:form`. */
import { parse as parseLoosely } from 'fast-querystring';
import { parseForm } from '../../src/http/form.ts';

const bodies = [
  'grant_type=password&username=alice&password=correct+horse+battery+staple&client_id=demo',
  `grant_type=refresh_token&client_id=demo&refresh_token=hrt_${'A'.repeat(91)}`,
  `token=hat_${'A'.repeat(70)}&token_type_hint=access_token`,
].map((body) => Buffer.from(body));

const ROUNDS = 200_000;
const PAIRS = 7;

/** What @fastify/formbody does with a body: text first, then fast-querystring. */
const loose = (body: Buffer) => parseLoosely(body.toString());

function seconds(parse: (body: Buffer) => unknown): number {
  const start = process.hrtime.bigint();
  for (let round = 0; round < ROUNDS; round++) parse(bodies[round % bodies.length] as Buffer);
  return Number(process.hrtime.bigint() - start) / 1e9;
}

const ratios: number[] = [];
seconds(parseForm);
seconds(loose);
// In turns, so that a change in the machine's speed meets both.
for (let pair = 0; pair < PAIRS; pair++) ratios.push(seconds(parseForm) / seconds(loose));
ratios.sort((one, other) => one - other);
const median = ratios[Math.floor(PAIRS / 2)] as number;
console.log(
  `strict / loose, median of ${PAIRS} pairs: ${median.toFixed(2)} (${ratios[0]?.toFixed(2)} to ${ratios.at(-1)?.toFixed(2)})`,
);
