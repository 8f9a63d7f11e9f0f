/** Looks for secrets in whatever form they could have been written down. */

/** The forms in which a secret could be written down. */
function encodings(secret: string): string[] {
  const text = Buffer.from(secret);
  const forms = [
    text.toString('utf8'),
    text.toString('hex'),
    text.toString('base64'),
    text.toString('base64url'),
  ];
  forms.push(encodeURIComponent(secret), new URLSearchParams([['', secret]]).toString().slice(1));
  // What a token carries, without its prefix: whole and in its secret parts.
  if (/^h[ar]t_/.test(secret)) {
    const bytes = Buffer.from(secret.slice(4), 'base64url').subarray(16, -4);
    const parts = bytes.length > 32 ? [bytes.subarray(0, 16), bytes.subarray(16)] : [bytes];
    for (const part of [bytes, ...parts]) {
      forms.push(part.toString('hex'), part.toString('base64'), part.toString('base64url'));
    }
  }
  // Padding and the last digit depend on what follows.
  return forms
    .map((form) => form.replace(/=+$/, ''))
    .map((form) => (form.length > 12 ? form.slice(0, -1) : form));
}

/** The forms of these secrets that a text holds. */
export const findSecrets = (secrets: Iterable<string>, text: string): string[] =>
  [...secrets].flatMap((secret) => encodings(secret)).filter((form) => text.includes(form));
