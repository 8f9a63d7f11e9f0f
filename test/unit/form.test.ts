import fc from 'fast-check';
import t from 'tap';
import { parseForm, readParameters } from '../../src/http/form.ts';
import { OAuthError } from '../../src/oauth/errors.ts';

const parse = (body: string | Buffer) => {
  const { values, repeated } = parseForm(Buffer.from(body));
  return { values: Object.fromEntries(values), repeated: [...repeated] };
};

t.test('ordinary bodies', async (t) => {
  t.strictSame(parse('a=1&b=x+y&c=%2B%26%3D'), {
    values: { a: '1', b: 'x y', c: '+&=' },
    repeated: [],
  });
  t.strictSame(parse(''), { values: {}, repeated: [] });
  t.strictSame(parse('&&a&b=&=c&'), { values: { a: '', b: '', '': 'c' }, repeated: [] });
  t.strictSame(parse('a+b=c+d'), { values: { 'a b': 'c d' }, repeated: [] });
  t.strictSame(parse('a=\ufffd'), { values: { a: '\ufffd' }, repeated: [] });
  t.strictSame(parse('a=b;c=d'), { values: { a: 'b;c=d' }, repeated: [] });
  t.strictSame(parse('a[]=1&a[b]=2'), { values: { 'a[]': '1', 'a[b]': '2' }, repeated: [] });
  t.strictSame(parse('a=1&a=&b=1'), { values: { a: '1', b: '1' }, repeated: ['a'] });
});

t.test('malformed escapes and octets that are not UTF-8 are refused, not repaired', async (t) => {
  const bad = ['a=%', 'a=%1', 'a=%zz', '%=1', 'a=%FF%FE', 'a=%C0%AE', 'a=%ED%A0%80', 'a=%E2%82'];
  for (const body of bad) t.throws(() => parse(body), { code: 'invalid_request' }, body);
  t.throws(() => parse(Buffer.from([0x61, 0x3d, 0xff])), { code: 'invalid_request' });
});

t.test('names of Object.prototype are names like others', async (t) => {
  const form = parseForm(Buffer.from('__proto__=x&constructor=y&toString=z'));
  t.equal(form.values.get('__proto__'), 'x');
  t.strictSame(readParameters(form, ['hasOwnProperty']), {});
});

t.test('only known parameters count, and only once', async (t) => {
  const form = parseForm(Buffer.from('a=1&b=2&b=2&c=&d=%00&e=x%09y&f=%C2%85'));
  t.strictSame(readParameters(form, ['a', 'c', 'e', 'f']), { a: '1', e: 'x\ty', f: '\u0085' });
  t.throws(() => readParameters(form, ['b']), { code: 'invalid_request' });
  t.throws(() => readParameters(form, ['d']), { code: 'invalid_request' });
});

t.test('the parser never throws anything else, and gives back what was encoded', async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
      try {
        const { values } = parseForm(Buffer.from(bytes));
        return [...values].every(
          ([name, value]) => typeof name === 'string' && typeof value === 'string',
        );
      } catch (error) {
        return error instanceof OAuthError && error.code === 'invalid_request';
      }
    }),
  );
  const text = fc.string({ unit: 'grapheme', minLength: 1 });
  fc.assert(
    fc.property(fc.dictionary(text, text, { maxKeys: 8, noNullPrototype: false }), (dictionary) => {
      const encoded = Object.entries(dictionary)
        .map(([name, value]) => `${encodeURIComponent(name)}=${encodeURIComponent(value)}`)
        .join('&');
      const { values, repeated } = parseForm(Buffer.from(encoded));
      return (
        repeated.size === 0 &&
        values.size === Object.keys(dictionary).length &&
        Object.entries(dictionary).every(([name, value]) => values.get(name) === value)
      );
    }),
  );
  t.pass();
});
