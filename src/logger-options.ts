/** How log lines look, whoever writes them: the application, or the process around it. */
import type { Config } from './config.ts';

/** One JSON object a line, with the time as people and machines read it. */
export const loggerOptions = ({ logLevel }: Config) => ({
  level: logLevel,
  timestamp: () => `,"time":"${new Date().toISOString()}"`,
  base: null,
  // Whoever logs an error as it is: what it carries beside these could be bound values of a statement.
  serializers: { err: whatItIs },
});

/** Of whatever was thrown, which need not be an error at all. */
function whatItIs(thrown: unknown): { type: string; message: string; stack: string } {
  const { name = '', message = '', stack = '' } = Object(thrown) as Partial<Error>;
  return { type: name, message, stack };
}
