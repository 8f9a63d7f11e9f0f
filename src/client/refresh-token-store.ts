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
