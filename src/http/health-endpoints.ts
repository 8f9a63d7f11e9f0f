/** `GET /livez` and `GET /readyz`: is the process alive, and should it get requests. */
import type { FastifyInstance } from 'fastify';
import Type from 'typebox';
import { TemporarilyUnavailable } from '../oauth/errors.ts';
import { refuseOtherMethods } from './endpoint.ts';
import { healthErrors, readinessErrors } from './schemas.ts';

/** @param checkReadiness throws `TemporarilyUnavailable` while the database does not answer */
export function addHealthEndpoints(
  app: FastifyInstance,
  checkReadiness: () => Promise<void>,
  isEnding: () => boolean,
): void {
  let checking: Promise<void> | undefined;
  /** One check at a time answers all who ask: anybody can, and its connections are those of the hot paths. */
  const check = (): Promise<void> => {
    checking ??= checkReadiness().finally(() => {
      checking = undefined;
    });
    return checking;
  };
  const describe = (operationId: string, summary: string) => ({
    operationId,
    summary,
    tags: ['Health'],
    security: [],
  });
  app.get(
    '/livez',
    {
      schema: {
        ...describe('livez', 'The process answers'),
        response: { 200: Type.Ref('Health'), ...healthErrors },
      },
    },
    async () => ({ status: 'ok' }),
  );
  app.get(
    '/readyz',
    {
      schema: {
        ...describe('readyz', 'Requests can be served'),
        response: { 200: Type.Ref('Health'), ...readinessErrors },
      },
    },
    async () => {
      if (isEnding()) throw new TemporarilyUnavailable('stopping');
      await check();
      return { status: 'ok' };
    },
  );
  refuseOtherMethods(app, '/livez', 'GET');
  refuseOtherMethods(app, '/readyz', 'GET');
}
