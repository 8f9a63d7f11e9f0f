/** The instant before which families are dead: everybody's, or one client's. */
import { type RawQueryFragment, raw } from '@mikro-orm/postgresql';

/**
 * Moves a cut-off to the present. A clock that steps back takes no family out of it: a cut-off never goes back,
 * and comes after families that have begun in what is the future again.
 *
 * Those are looked for by themselves, at last: where there are many families that takes a while.
 *
 * @param move writes `sessions_valid_after`
 * @param families whose they are: a condition on `token_family`, with its values
 */
export async function moveCutOff(
  move: (instant: RawQueryFragment) => Promise<unknown>,
  families: string,
  values: readonly unknown[] = [],
): Promise<void> {
  await move(raw('greatest(sessions_valid_after, clock_timestamp())'));
  const latestStart = `select max(started_at) from token_family
    where started_at > statement_timestamp() and ${families}`;
  await move(raw(`greatest(sessions_valid_after, (${latestStart}))`, [...values]));
}
