/** What goes over the wire, as OpenAPI shows it. Parsing and checking are done by hand and strictly. */
import Type from 'typebox';
import { OAuthError, type OAuthErrorCode } from '../oauth/errors.ts';
import { BASIC_CHALLENGE } from './error-handler.ts';
import { CSRF_HEADER } from './refresh-cookie.ts';

/** Longer ones are refused. In code points, as JSON Schema and PostgreSQL count: an emoji is one or a few. */
export const MAXIMUM_DEVICE_LABEL_CHARACTERS = 64;

/** RFC 6749 Appendix A.15: control characters other than TAB are refused. */
const text = { pattern: '^[^\\x00-\\x08\\x0a-\\x1f\\x7f]*$' };

/** A parameter without a value counts as omitted. Unless told so, Swagger UI would send "string". */
const empty = { ...text, default: '' };

/** A parameter that is required is not omitted, so it has a value. */
const filled = { ...text, minLength: 1 };

const clientParameters = {
  client_id: Type.Optional(
    Type.String({ ...empty, description: 'Who asks, unless the Authorization header says it.' }),
  ),
  client_secret: Type.Optional(
    Type.String({
      ...empty,
      format: 'password',
      description: 'A confidential client may authenticate here or by HTTP Basic, not by both.',
    }),
  ),
};

const passwordParameters = {
  username: Type.Optional(
    Type.String({ ...text, examples: ['alice'], description: 'For the password grant.' }),
  ),
  password: Type.Optional(
    Type.String({
      ...text,
      format: 'password',
      examples: ['correct horse battery staple'],
      description: 'For the password grant.',
    }),
  ),
};

const tokenRequest = (grantTypes: readonly string[]) =>
  Type.Object({
    grant_type: Type.String({
      ...filled,
      description: `${grantTypes.map((each) => `\`${each}\``).join(' or ')}.`,
      examples: grantTypes,
    }),
    ...(grantTypes.includes('password') && passwordParameters),
    refresh_token: Type.Optional(
      Type.String({ ...empty, description: 'For the refresh token grant.' }),
    ),
    scope: Type.Optional(
      Type.String({
        ...empty,
        description: 'Scopes separated by spaces; all of the client’s when omitted.',
      }),
    ),
    device_label: Type.Optional(
      Type.String({
        ...empty,
        maxLength: MAXIMUM_DEVICE_LABEL_CHARACTERS,
        description: 'What a person calls this device, shown in lists of sessions.',
      }),
    ),
    ...clientParameters,
    client_id: Type.Optional(Type.String({ ...clientParameters.client_id, examples: ['demo'] })),
  });

const inquiryParameters = {
  token_type_hint: Type.Optional(
    Type.String({ ...empty, description: 'Accepted and not needed: the text tells the kind.' }),
  ),
  ...clientParameters,
};

const introspectionRequest = Type.Object({
  token: Type.String({
    ...filled,
    examples: ['PASTE_AN_ACCESS_TOKEN'],
    description: 'An access token or a refresh token.',
  }),
  ...inquiryParameters,
});

const revocationRequest = Type.Object({
  token: Type.Optional(
    Type.String({
      ...empty,
      description: 'An access token or a refresh token; may be left out in cookie mode only.',
    }),
  ),
  ...inquiryParameters,
});

/** What apps in cookie mode send, or are refused with 403. */
export const appHeaders = Type.Object({
  [CSRF_HEADER]: Type.Optional(
    Type.String({
      default: '',
      description:
        '`1` for clients in cookie mode, which also send an `Origin` of theirs; others need none.',
    }),
  ),
});

/** Headers of answers, as OpenAPI describes them. */
export const cookieHeader = {
  'Set-Cookie': Type.String({
    description:
      'For clients in cookie mode: sets or clears the cookie that carries the refresh token.',
  }),
};

const challengeHeader = {
  'WWW-Authenticate': Type.String({ examples: [BASIC_CHALLENGE], description: 'RFC 7617.' }),
};

const retryHeader = {
  'Retry-After': Type.Integer({ minimum: 1, description: 'Seconds to wait.' }),
};

const requestIdHeader = {
  'X-Request-Id': Type.String({ format: 'uuid', description: 'Finds the fault in the log.' }),
};

const limitHeaders = {
  'RateLimit-Limit': Type.Integer({ description: 'Requests that the limit allows at a time.' }),
  'RateLimit-Remaining': Type.Integer({ description: 'How many of them are left.' }),
  'RateLimit-Reset': Type.Integer({ description: 'Seconds until all are there again.' }),
};

type Headers = Readonly<Record<string, Type.TSchema>>;
export type Responses = Readonly<Record<string, Type.TSchema>>;

const headersOf = (response: { readonly headers?: Headers }) => response.headers;

/** What is refused before requests are counted says nothing about them. */
export const withLimitHeaders = ({ default: uncounted, ...counted }: Responses): Responses => ({
  ...Object.fromEntries(
    Object.entries(counted).map(([status, response]) => [
      status,
      { ...response, headers: { ...headersOf(response), ...limitHeaders } },
    ]),
  ),
  ...(uncounted && { default: uncounted }),
});

const tokenResponse = Type.Object(
  {
    access_token: Type.String({
      pattern: '^hat_[A-Za-z0-9_-]{70}$',
      examples: [`hat_${'x'.repeat(70)}`],
    }),
    token_type: Type.Literal('Bearer'),
    expires_in: Type.Integer({ minimum: 1, examples: [900], description: 'Seconds.' }),
    refresh_token: Type.Optional(
      Type.String({ pattern: '^hrt_[A-Za-z0-9_-]{91}$', examples: [`hrt_${'x'.repeat(91)}`] }),
    ),
    scope: Type.String({ examples: ['read write'] }),
  },
  { description: 'Tokens, RFC 6749 section 5.1.' },
);

const activeIntrospection = Type.Object({
  active: Type.Literal(true),
  scope: Type.String({ examples: ['read write'] }),
  client_id: Type.String({ examples: ['demo'] }),
  sub: Type.Optional(Type.String({ examples: ['66cbf3ef-1b3b-4efb-8a0c-d7f1c2a5f8f4'] })),
  aud: Type.Optional(
    Type.Union([Type.String(), Type.Array(Type.String())], {
      examples: ['https://api.example'],
    }),
  ),
  iss: Type.String({ format: 'uri', examples: ['http://127.0.0.1:3000'] }),
  token_type: Type.Optional(Type.Literal('Bearer')),
  exp: Type.Integer({ examples: [1_800_000_900], description: 'Seconds since 1970.' }),
  iat: Type.Integer({ examples: [1_800_000_000], description: 'Seconds since 1970.' }),
});

const inactiveIntrospection = Type.Object(
  { active: Type.Literal(false) },
  { additionalProperties: false },
);

const introspection = Type.Union(
  [Type.Ref('ActiveIntrospection'), Type.Ref('InactiveIntrospection')],
  { description: 'RFC 7662 section 2.2. An inactive token carries no claim at all.' },
);

const revocation = Type.Object({}, { description: 'The token is not good any more.' });

const metadata = Type.Object(
  {
    issuer: Type.String({ format: 'uri' }),
    token_endpoint: Type.String({ format: 'uri' }),
    token_endpoint_auth_methods_supported: Type.Array(Type.String()),
    grant_types_supported: Type.Array(Type.String()),
    revocation_endpoint: Type.String({ format: 'uri' }),
    revocation_endpoint_auth_methods_supported: Type.Array(Type.String()),
    introspection_endpoint: Type.String({ format: 'uri' }),
    introspection_endpoint_auth_methods_supported: Type.Array(Type.String()),
  },
  { description: 'RFC 8414 section 2.' },
);

const health = Type.Object({ status: Type.Literal('ok') }, { description: 'All is well.' });

const errorResponse = Type.Object(
  { error: Type.String(), error_description: Type.Optional(Type.String()) },
  { description: 'Every failure, RFC 6749 section 5.2.' },
);

/** By the names that `Type.Ref` takes, and that generators of clients give to their types. */
export const namedSchemas = (grantTypes: readonly string[]) => ({
  TokenRequest: tokenRequest(grantTypes),
  TokenResponse: tokenResponse,
  RevocationRequest: revocationRequest,
  Revocation: revocation,
  IntrospectionRequest: introspectionRequest,
  Introspection: introspection,
  ActiveIntrospection: activeIntrospection,
  InactiveIntrospection: inactiveIntrospection,
  Metadata: metadata,
  Health: health,
  ErrorResponse: errorResponse,
});

type Failure = { readonly error: string; readonly error_description?: string };

/** Spelled out, because examples beside a reference would be lost. */
const failure = (description: string, examples: readonly Failure[], headers?: Headers) => ({
  description,
  headers,
  content: {
    'application/json': {
      schema: Type.Ref('ErrorResponse'),
      examples: Object.fromEntries(examples.map((value) => [value.error, { value }])),
    },
  },
});

const refusal = (code: OAuthErrorCode): Failure => ({
  error: code,
  error_description: new OAuthError(code, '').description,
});

const unavailable = (description: string) =>
  failure(description, [{ error: 'temporarily_unavailable' }], retryHeader);

/** What any request can meet. */
const commonErrors = {
  500: failure('A fault of the server.', [{ error: 'server_error' }], requestIdHeader),
  default: failure(
    'HTTP itself is violated, or a limit on headers or on time: 400, 405, 408, 431, 501.',
    [{ error: 'invalid_request' }, { error: 'method_not_allowed' }],
    { Allow: Type.String({ description: 'With 405: the methods that there are.' }) },
  ),
};

export const healthErrors = commonErrors;

export const metadataErrors = {
  ...commonErrors,
  400: failure('A proxy says that the request came over plain HTTP.', [
    { error: 'invalid_request' },
  ]),
  503: unavailable('The server is stopping.'),
};

export const readinessErrors = {
  ...commonErrors,
  503: unavailable('The database does not answer, or the server is stopping.'),
};

/** Failures that every endpoint for clients has in common; `codes` are those of status 400. */
export const clientEndpointErrors = (...codes: OAuthErrorCode[]) => ({
  ...commonErrors,
  400: failure('The request is refused, RFC 6749 section 5.2.', codes.map(refusal)),
  401: failure('Client authentication failed.', [refusal('invalid_client')], challengeHeader),
  413: failure('The body is too large.', [{ error: 'invalid_request' }]),
  415: failure('The body is not application/x-www-form-urlencoded in UTF-8.', [
    { error: 'invalid_request' },
  ]),
  429: unavailable('Too many requests; `Retry-After` says when to come back.'),
  503: unavailable(
    'Try again with the same token after `Retry-After` seconds; nothing is decided.',
  ),
});

/** For endpoints that apps in browsers use. */
export const appEndpointErrors = (...codes: OAuthErrorCode[]) => ({
  ...clientEndpointErrors(...codes, 'invalid_client'),
  401: failure(
    'Client authentication failed. It is 400 for a page that sent no `Authorization` header, because its ' +
      'browser would ask the person for a password.',
    [refusal('invalid_client')],
    challengeHeader,
  ),
  403: failure(
    'The client is in cookie mode and the request does not come from its own app. Nothing is changed.',
    [refusal('access_denied')],
  ),
});
