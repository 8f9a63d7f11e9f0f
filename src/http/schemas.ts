/** What goes over the wire, as OpenAPI shows it. Parsing and checking are done by hand and strictly. */
import Type from 'typebox';

const formOnly = { additionalProperties: true };

/** A parameter without a value counts as omitted. Unless told so, Swagger UI would send "string". */
const empty = { default: '' };

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

export const tokenRequest = Type.Object(
  {
    grant_type: Type.String({
      description: '`password` or `refresh_token`.',
      examples: ['password', 'refresh_token'],
    }),
    username: Type.Optional(
      Type.String({ examples: ['alice'], description: 'For the password grant.' }),
    ),
    password: Type.Optional(
      Type.String({
        format: 'password',
        examples: ['correct horse battery staple'],
        description: 'For the password grant.',
      }),
    ),
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
        maxLength: 64,
        description: 'What a person calls this device, shown in lists of sessions.',
      }),
    ),
    ...clientParameters,
    client_id: Type.Optional(Type.String({ ...clientParameters.client_id, examples: ['demo'] })),
  },
  formOnly,
);

const inquiryParameters = {
  token_type_hint: Type.Optional(
    Type.String({ ...empty, description: 'Accepted and not needed: the text tells the kind.' }),
  ),
  ...clientParameters,
};

export const tokenInquiry = Type.Object(
  {
    token: Type.String({ ...empty, description: 'An access token or a refresh token.' }),
    ...inquiryParameters,
  },
  formOnly,
);

export const revocationRequest = Type.Object(
  {
    token: Type.Optional(
      Type.String({
        ...empty,
        description: 'An access token or a refresh token; may be left out in cookie mode only.',
      }),
    ),
    ...inquiryParameters,
  },
  formOnly,
);

/** What apps in cookie mode send, or are refused with 403. */
export const appHeaders = Type.Object({
  'x-heirloom-csrf': Type.Optional(
    Type.String({
      ...empty,
      description:
        '`1` for clients in cookie mode, which also send an `Origin` of theirs; others need none.',
    }),
  ),
});

/** A header of answers, as OpenAPI describes it. */
export const cookieHeader = {
  'Set-Cookie': Type.String({
    description:
      'For clients in cookie mode: sets or clears the cookie that carries the refresh token.',
  }),
};

export const tokenResponse = Type.Object(
  {
    access_token: Type.String({ pattern: '^hat_[A-Za-z0-9_-]{70}$' }),
    token_type: Type.Literal('Bearer'),
    expires_in: Type.Integer({ minimum: 1, examples: [900], description: 'Seconds.' }),
    refresh_token: Type.Optional(Type.String({ pattern: '^hrt_[A-Za-z0-9_-]{91}$' })),
    scope: Type.String({ examples: ['read write'] }),
  },
  { description: 'Tokens, RFC 6749 section 5.1.' },
);

export const introspectionResponse = Type.Union(
  [
    Type.Object({
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
    }),
    Type.Object({ active: Type.Literal(false) }, { additionalProperties: false }),
  ],
  { description: 'RFC 7662 section 2.2. An inactive token carries no claim at all.' },
);

export const metadataResponse = Type.Object(
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

export const health = Type.Object({ status: Type.Literal('ok') }, { description: 'All is well.' });

const error = (code: string, description: string) =>
  Type.Object(
    { error: Type.String(), error_description: Type.Optional(Type.String()) },
    { description, examples: [{ error: code }] },
  );

/** Failures that every endpoint for clients has in common. */
export const clientEndpointErrors = {
  400: error('invalid_request', 'The request is refused, RFC 6749 section 5.2.'),
  401: error('invalid_client', 'Client authentication failed.'),
  413: error('invalid_request', 'The body is too large.'),
  415: error('invalid_request', 'The body is not application/x-www-form-urlencoded in UTF-8.'),
  429: error('temporarily_unavailable', 'Too many requests; `Retry-After` says when to come back.'),
  500: error('server_error', 'A fault of the server.'),
  503: error(
    'temporarily_unavailable',
    'Try again with the same token after `Retry-After` seconds; nothing is decided.',
  ),
};

/** For endpoints that apps in browsers use. */
export const appEndpointErrors = {
  ...clientEndpointErrors,
  403: error(
    'access_denied',
    'The client is in cookie mode and the request does not come from its own app. Nothing is changed.',
  ),
};

export const notReady = {
  503: error('temporarily_unavailable', 'The database does not answer, or the server is stopping.'),
};
