/** How log lines look, whoever writes them: the application, or the process around it. */
import type { Config } from './config.ts';

/** One JSON object a line, with the time as people and machines read it. */
export const loggerOptions = ({ logLevel }: Config) => ({
  level: logLevel,
  timestamp: () => `,"time":"${new Date().toISOString()}"`,
  base: null,
});
