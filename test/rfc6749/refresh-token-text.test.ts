/**
 * What the tokens look like, RFC 6749 Appendix A.12 and A.17 (`1*VSCHAR`), and §10.10:
 *
 * > The probability of an attacker guessing generated tokens … MUST be less than or equal to 2^(-128)
 * > and SHOULD be less than or equal to 2^(-160).
 */
import t from 'tap';
import { form } from '../support/client.ts';
import { ALICE_PASSWORD, invalidGrantBody, login, refresh } from '../support/fixtures.ts';
import { startServer } from '../support/server.ts';

const server = await startServer(t, { isRateLimitOn: false });
const { clients, resourceOwners } = server.dependencies;
await resourceOwners.create('alice', ALICE_PASSWORD);
await clients.create({
  clientId: 'P1',
  clientType: 'public',
  grantTypes: ['password', 'refresh_token'],
  scope: ['read', 'write'],
});
const p1 = { id: 'P1' };

/** Refreshes one family so many times in a row; answers every token that came. */
async function issue(refreshes: number): Promise<string[]> {
  let { body } = await login(server, p1);
  const tokens = [body.access_token, body.refresh_token];
  for (let index = 0; index < refreshes; index++) {
    // Without a socket, because there are thousands.
    const answer = await server.app.inject({
      method: 'POST',
      url: '/token',
      headers: { 'content-type': 'application/x-www-form-urlencoded' },
      payload: form({
        grant_type: 'refresh_token',
        client_id: p1.id,
        refresh_token: body.refresh_token,
      }),
    });
    body = answer.json();
    if (answer.statusCode !== 200) throw new Error(`${answer.body} ${server.logs.at(-1)}`);
    tokens.push(body.access_token, body.refresh_token);
  }
  return tokens;
}

const SECRET_BYTES = 32;
const CHECKSUM_BYTES = 4;

/** What nobody may guess; the family id before it is known to every resource server. */
function secretOf(token: string): Buffer {
  const bytes = Buffer.from(token.slice('hat_'.length), 'base64url');
  return bytes.subarray(
    bytes.length - CHECKSUM_BYTES - SECRET_BYTES,
    bytes.length - CHECKSUM_BYTES,
  );
}

/** Shannon's estimate over one text, as the OpenID conformance suite makes it. */
function estimateEntropyBits(text: string): number {
  let bits = 0;
  for (const character of new Set(text)) {
    const share = text.split(character).length - 1;
    bits -= share * Math.log2(share / text.length);
  }
  return bits;
}

t.test('RFT-27 RFC 6749 §10.10: tokens are URL-safe, short, unique and unguessable', async (t) => {
  const families = 10;
  const tokens = (await Promise.all(Array.from({ length: families }, () => issue(499)))).flat();
  t.equal(tokens.length, 10_000);
  t.equal(new Set(tokens).size, 10_000, 'unique');
  t.strictSame(
    tokens.filter((token) => !/^h[ar]t_[A-Za-z0-9_-]+$/.test(token) || token.length > 255),
    [],
    'VSCHAR, and needing no escape in a URL',
  );
  t.equal(Math.max(...tokens.map((token) => token.length)), 95);

  const secrets = tokens.map(secretOf);
  const poorest = Math.min(
    ...secrets.map((secret) => estimateEntropyBits(secret.toString('base64url'))),
  );
  t.ok(poorest >= 128, `${poorest} bits at least`);
  // Each bit is set in half of the secrets; seven standard deviations leave chance no part in it.
  const tolerance = (7 * Math.sqrt(secrets.length)) / 2;
  for (let bit = 0; bit < SECRET_BYTES * 8; bit++) {
    const isSet = (secret: Buffer) => ((secret[bit >> 3] as number) >> (bit & 7)) & 1;
    const ones = secrets.reduce((count, secret) => count + isSet(secret), 0);
    if (Math.abs(ones - secrets.length / 2) > tolerance) t.fail(`bit ${bit} is set ${ones} times`);
  }
});

t.test(
  'RFT-28 RFC 6749 §6: a token with one letter in the other case is another token',
  async (t) => {
    const token: string = (await login(server, p1)).body.refresh_token;
    const variants = [...token].flatMap((letter, index) => {
      const isUpper = letter === letter.toUpperCase();
      const flipped = isUpper ? letter.toLowerCase() : letter.toUpperCase();
      return flipped === letter ? [] : [token.slice(0, index) + flipped + token.slice(index + 1)];
    });
    t.ok(variants.length > 40, `${variants.length} letters`);
    const answers = await Promise.all(variants.map((variant) => refresh(server, p1, variant)));
    t.strictSame(new Set(answers.map(({ status }) => status)), new Set([400]));
    for (const { body } of answers) t.strictSame(body, invalidGrantBody);
    t.equal((await refresh(server, p1, token)).status, 200, 'and the true one works');
  },
);
