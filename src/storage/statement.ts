/** A named statement: prepared once per connection, with bind parameters only. */
export interface Statement {
  readonly name: string;
  readonly text: string;
}
