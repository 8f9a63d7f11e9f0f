/** A reason not to start that the person who runs the server can mend; printed as one line, exit code 1. */
export class StartUpError extends Error {
  override readonly name = 'StartUpError';
}
