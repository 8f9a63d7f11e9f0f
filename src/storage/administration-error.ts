/** A refusal of administrative work, in words for the person who asked for it. */
export class AdministrationError extends Error {
  override readonly name = 'AdministrationError';
}

/** The name that was to be given is taken, perhaps a moment ago by another process. */
export class NameTaken extends AdministrationError {}
