/** The request of RFC 7009 §2.1 and of RFC 7662 §2.1: a token and a client. */
import type { FastifyRequest } from 'fastify';
import type { TokenInquiry } from '../oauth/authorization-server.ts';
import { networkOf } from './address.ts';
import { clientCredentialParameters, readClientCredentials } from './client-credentials.ts';
import { type Form, readParameters } from './form.ts';

/** The hint is checked for repetition and then ignored: the text of a token tells its kind. */
const parameterNames = ['token', 'token_type_hint', ...clientCredentialParameters] as const;

/** @throws OAuthError `invalid_request` or `invalid_client`, as the form and the header deserve */
export function readTokenInquiry(form: Form, request: FastifyRequest): TokenInquiry {
  const parameters = readParameters(form, parameterNames);
  return {
    credentials: readClientCredentials(request.headers.authorization, parameters),
    token: parameters.token,
    network: () => networkOf(request),
  };
}
