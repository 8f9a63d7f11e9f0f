import { createHash, randomBytes } from 'node:crypto';
import fc from 'fast-check';
import t from 'tap';
import {
  deriveSuccessor,
  digest,
  formatAccessToken,
  formatRefreshToken,
  generateClientSecret,
  generateFamilyId,
  generateLineage,
  generateSecret,
  isSameDigest,
  parseOpaqueToken,
} from '../../src/oauth/opaque-token.ts';

const sample = () => {
  const familyId = generateFamilyId();
  const lineage = generateLineage();
  const secret = generateSecret();
  return {
    familyId,
    lineage,
    secret,
    access: formatAccessToken(familyId, secret),
    refresh: formatRefreshToken(familyId, lineage, secret),
  };
};

t.test('what is written is read again', async (t) => {
  const { familyId, lineage, secret, access, refresh } = sample();
  t.match(access, /^hat_[A-Za-z0-9_-]{70}$/);
  t.match(refresh, /^hrt_[A-Za-z0-9_-]{91}$/);
  t.strictSame(parseOpaqueToken(access), {
    kind: 'access_token',
    familyId,
    secretDigest: digest(secret),
  });
  t.strictSame(parseOpaqueToken(refresh), {
    kind: 'refresh_token',
    familyId,
    lineage,
    lineageDigest: digest(lineage),
    secret,
    secretDigest: digest(secret),
  });
});

t.test('a token is written as ever, since those that were issued are shown again', async (t) => {
  const familyId = '01234567-89ab-cdef-0123-456789abcdef';
  const secret = Buffer.alloc(32, 2);
  t.equal(
    formatAccessToken(familyId, secret),
    'hat_ASNFZ4mrze8BI0VniavN7wICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICrDQ2UA',
  );
  t.equal(
    formatRefreshToken(familyId, Buffer.alloc(16, 1), secret),
    'hrt_ASNFZ4mrze8BI0VniavN7wEBAQEBAQEBAQEBAQEBAQECAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICArpGaAg',
  );
});

t.test('every other text is refused', async (t) => {
  const { access, refresh } = sample();
  for (const token of [access, refresh]) {
    const swapped = token.startsWith('hat_')
      ? token.replace('hat_', 'hrt_')
      : token.replace('hrt_', 'hat_');
    const garbage = [
      '',
      'hat_',
      swapped,
      token.slice(0, -1),
      `${token}A`,
      `${token}=`,
      ` ${token}`,
      `${token} `,
      `${token}\n`,
      token.toUpperCase(),
      token.slice(4),
      token.repeat(10),
      `${token.slice(0, 20)} ${token.slice(20)}`,
    ];
    for (const text of garbage) t.equal(parseOpaqueToken(text), undefined, JSON.stringify(text));
  }
});

t.test('no changed character goes unnoticed, nor unused bits of the last one', async (t) => {
  const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_+/.';
  const { access, refresh } = sample();
  for (const token of [access, refresh]) {
    for (let index = 4; index < token.length; index++) {
      for (const character of index === token.length - 1 ? alphabet : 'Aa0-+') {
        if (character === token[index]) continue;
        const changed = token.slice(0, index) + character + token.slice(index + 1);
        if (parseOpaqueToken(changed) !== undefined) t.fail(`${index} ${character}`);
      }
    }
  }
});

t.test('random text is never a token and never throws', async (t) => {
  const text = fc.oneof(
    fc.string({ unit: 'binary', maxLength: 600 }),
    fc.base64String({ maxLength: 120 }).map((encoded) => `hrt_${encoded}`),
  );
  fc.assert(fc.property(text, (candidate) => parseOpaqueToken(candidate) === undefined));
  t.pass();
});

t.test('a successor follows from token and salt together, and from neither alone', async (t) => {
  const salt = generateSecret();
  const secret = generateSecret();
  const { refreshSecret, accessSecret } = deriveSuccessor(salt, secret);
  t.strictSame(deriveSuccessor(salt, secret), { refreshSecret, accessSecret });
  for (const derived of [refreshSecret, accessSecret]) t.equal(derived.length, 32);
  const others = [
    deriveSuccessor(generateSecret(), secret),
    deriveSuccessor(salt, generateSecret()),
  ];
  const all = [{ refreshSecret, accessSecret }, ...others].flatMap((pair) => Object.values(pair));
  t.equal(new Set(all.map((each) => each.toString('hex'))).size, 6);
});

t.test(
  'SP 800-56C §4.1: a successor is one block of SHA-512 over counter, secret, label and salt',
  async (t) => {
    const { refreshSecret, accessSecret } = deriveSuccessor(
      Buffer.alloc(32, 1),
      Buffer.alloc(32, 2),
    );
    const block = createHash('sha512')
      .update(Buffer.from('00000001', 'hex'))
      .update(Buffer.alloc(32, 2))
      .update('heirloom successor')
      .update(Buffer.alloc(32, 1));
    t.strictSame(Buffer.concat([refreshSecret, accessSecret]), block.digest());
  },
);

t.test('digests of different lengths are different', async (t) => {
  t.equal(isSameDigest(randomBytes(32), Buffer.alloc(0)), false);
  t.equal(isSameDigest(digest('a'), digest('a')), true);
});

t.test('STO-05 ASVS 7.2.3: secrets do not repeat and have no structure', async (t) => {
  const seen = new Set<string>();
  const ones = new Array<number>(384).fill(0);
  const total = 20_000;
  for (let index = 0; index < total; index++) {
    const bytes = Buffer.concat([generateLineage(), generateSecret()]);
    seen.add(bytes.toString('hex'));
    for (let bit = 0; bit < 384; bit++) {
      ones[bit] = (ones[bit] as number) + (((bytes[bit >> 3] as number) >> (bit & 7)) & 1);
    }
  }
  t.equal(seen.size, total);
  // Six standard deviations of a fair coin: a false alarm in a hundred thousand runs.
  const limit = 6 * Math.sqrt(total / 4);
  t.ok(ones.every((count) => Math.abs(count - total / 2) < limit));
});

t.test(
  'CLA-28 OAuth 2.1: a generated client secret survives every encoding and has 256 bits',
  async (t) => {
    const secret = generateClientSecret();
    t.match(secret, /^hcs_[A-Za-z0-9_-]{43}$/);
    t.equal(encodeURIComponent(secret), secret);
  },
);
