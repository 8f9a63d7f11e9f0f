/** Answers in time: what takes longer than a client waits is 503, whatever it is that takes so long. */
import type { AuthorizationServer } from '../oauth/authorization-server.ts';
import { TemporarilyUnavailable } from '../oauth/errors.ts';

/**
 * Gives every method a deadline. Each wait for the database has one of its own, but a request has several of them,
 * and on a network that has fallen silent it first waits for statements of others.
 *
 * What is late is done all the same. Its outcome is unknown to the client, who repeats it as after a lost answer.
 */
export function answerInTime(server: AuthorizationServer, seconds: number): AuthorizationServer {
  const inTime = <Answer>(work: Promise<Answer>): Promise<Answer> =>
    new Promise((resolve, reject) => {
      const giveUp = () => reject(new TemporarilyUnavailable(`not done within ${seconds} s`));
      const timer = setTimeout(giveUp, seconds * 1000);
      // No chain of promises, whose every link would cost each introspection.
      work.then(
        (answer) => {
          clearTimeout(timer);
          resolve(answer);
        },
        (reason) => {
          clearTimeout(timer);
          reject(reason);
        },
      );
    });
  return {
    grantTypes: server.grantTypes,
    token: (request) => inTime(server.token(request)),
    revoke: (request) => inTime(server.revoke(request)),
    introspect: (inquiry) => inTime(server.introspect(inquiry)),
  };
}
