import t from 'tap';
import { formatScope, grantScope, isWithinScope, parseScope } from '../../src/oauth/scope.ts';

t.test('a scope is tokens separated by single spaces, each once', async (t) => {
  t.strictSame([...parseScope('read write')], ['read', 'write']);
  t.strictSame([...parseScope('write read read')], ['write', 'read']);
  t.strictSame([...parseScope('a:b/c!#[]~')], ['a:b/c!#[]~']);
  t.equal(formatScope(parseScope('read write')), 'read write');
});

t.test('anything outside the grammar of RFC 6749 §3.3 is invalid_scope', async (t) => {
  for (const text of [
    '',
    ' ',
    ' read',
    'read ',
    'read  write',
    'a\tb',
    'a"b',
    'a\\b',
    'é',
    'a\nb',
  ]) {
    t.throws(() => parseScope(text), { code: 'invalid_scope' }, JSON.stringify(text));
  }
});

t.test('what is granted is the request, or all there is, and never more', async (t) => {
  const whole = parseScope('read write');
  t.equal(grantScope(undefined, whole), whole);
  t.strictSame([...grantScope(parseScope('write'), whole)], ['write']);
  t.throws(() => grantScope(parseScope('write admin'), whole), { code: 'invalid_scope' });
  t.throws(() => grantScope(parseScope('READ'), whole), { code: 'invalid_scope' });
  t.ok(isWithinScope(new Set(), whole));
});
