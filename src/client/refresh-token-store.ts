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
 * Lets a store save one token at a time: of two that it is given at once the later one may be there first,
 * and the token of a session that is over would take the place of the next one's.
 */
export function saveInOrder(store: RefreshTokenStore): RefreshTokenStore {
  let last: Promise<void> = Promise.resolve();
  return {
    load: () => store.load(),
    save(refreshToken) {
      const save = () => store.save(refreshToken);
      last = last.then(save, save);
      return last;
    },
    clear: () => store.clear(),
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
