/** Reads the bodies of requests, which are forms (RFC 6749 Appendix B) and nothing else. */
import type { FastifyInstance, FastifyRequest } from 'fastify';
import { httpError } from './error-handler.ts';
import { type Form, parseForm } from './form.ts';

/** Only forms in UTF-8 and without a coding are read; everything else is 415. */
export function acceptFormsOnly(app: FastifyInstance): void {
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    'application/x-www-form-urlencoded',
    { parseAs: 'buffer' },
    ({ headers }: FastifyRequest, body: Buffer, done) => {
      try {
        done(null, readForm(headers, body));
      } catch (error) {
        done(error as Error);
      }
    },
  );
}

function readForm(headers: FastifyRequest['headers'], body: Buffer): Form {
  if (!isUtf8Form(headers['content-type'])) throw httpError(415, 'CHARSET');
  if (isCoded(headers)) throw httpError(415, 'CODING');
  return parseForm(body);
}

/** RFC 6749 Appendix B: UTF-8, whether the charset is stated or not; stated twice, each must be it. */
const isUtf8Form = (contentType = ''): boolean =>
  !/;\s*charset\s*=(?!\s*"?utf-8"?\s*(?:;|$))/i.test(contentType);

/** Node undoes `chunked` and nothing else; compressed bytes must not be parsed as if they were plain. */
const isCoded = ({
  'content-encoding': content = 'identity',
  'transfer-encoding': transfer = 'chunked',
}: FastifyRequest['headers']): boolean =>
  content.toLowerCase() !== 'identity' || transfer.toLowerCase() !== 'chunked';
