/** Where a client that gets its refresh token in the response keeps it. */

/**
 * For apps without a browser. `save` resolves only when the token will survive a crash: from then on the
 * one before it is spent.
 */
export interface RefreshTokenStore {
  load(): Promise<string | undefined>;
  save(refreshToken: string): Promise<void>;
  clear(): Promise<void>;
}

/**
 * Lets a store save one token at a time, and after the clearing that was asked for before: of two things that it
 * is given at once the later one may be there first, and the token of a session that is over would take the place
 * of the next one's, or its end take the next one's away. Clearing waits for nobody: a logout never hangs on a save.
 */
export function saveInOrder(store: RefreshTokenStore): RefreshTokenStore {
  let last: Promise<unknown> = Promise.resolve();
  return {
    load: () => store.load(),
    save(refreshToken) {
      const save = () => store.save(refreshToken);
      const saved = last.then(save, save);
      last = saved;
      return saved;
    },
    clear() {
      const cleared = store.clear();
      last = Promise.allSettled([last, cleared]);
      return cleared;
    },
  };
}

/** Keeps the token in memory: it ends with the process. */
export function memoryRefreshTokenStore(): RefreshTokenStore {
  let kept: string | undefined;
  return {
    load: async () => kept,
    save: async (refreshToken) => {
      kept = refreshToken;
    },
    clear: async () => {
      kept = undefined;
    },
  };
}
