/** A refusal of administrative work, in words for the person who asked for it. */
export class AdministrationError extends Error {
  override readonly name = 'AdministrationError';
}
