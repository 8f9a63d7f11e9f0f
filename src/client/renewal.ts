/** Fetches the next access token: once for all who want it, in this tab and in the others. */
import { type AccessToken, fromResponse, isOtherLogin } from './access-token.ts';
import type { AuthorizationServerEndpoints } from './authorization-server.ts';
import { type BackOff, withBackOff } from './back-off.ts';
import { SignedOutError, TokenRequestError } from './errors.ts';
import type { RefreshTokenStore } from './refresh-token-store.ts';
import { ofSameLogin, type SessionState, toShared } from './session-state.ts';
import type { SignOutReason, Tabs } from './tabs.ts';

export interface RenewalOptions {
  readonly endpoints: AuthorizationServerEndpoints;
  /** Undefined where the refresh token is a cookie that no script sees. */
  readonly store: RefreshTokenStore | undefined;
  readonly backOff: BackOff;
  readonly state: SessionState;
  readonly tabs: Tabs;
}

/**
 * Builds `renew`, whose callers share one request as long as nobody logs in or out meanwhile.
 *
 * `renew` throws `SignedOutError` when the session is over, which it then has ended in all tabs.
 */
export function createRenewal(options: RenewalOptions): () => Promise<AccessToken> {
  const { store, state, tabs } = options;
  let renewal: { readonly epoch: number; readonly promise: Promise<AccessToken> } | undefined;

  const endSession = async (reason: SignOutReason): Promise<never> => {
    state.signOut(reason);
    tabs.announceSignOut(reason);
    await store?.clear();
    throw new SignedOutError();
  };

  const renewOnce = async (stale: AccessToken | undefined, began: number): Promise<AccessToken> => {
    await tabs.askOthers();
    if (state.token !== stale) return overtaken(state, stale);
    const refreshToken = await store?.load();
    if (state.epoch !== began) return overtaken(state, stale);
    if (store !== undefined && refreshToken === undefined) return endSession('ended');
    const refreshed = await refresh(options, refreshToken, began);
    if (state.epoch !== began) return overtaken(state, stale);
    if (refreshed === 'over') return endSession('ended');
    const { token, successor } = refreshed;
    // Durable before it is used: a client that loses its newest token holds a spent one.
    if (successor !== undefined) await store?.save(successor);
    if (state.epoch !== began) return overtaken(state, stale);
    // The cookie is of somebody who has logged in in another tab, and this one has not heard of it.
    if (stale !== undefined && isOtherLogin(stale.text, token.text)) {
      state.signOut('other-login');
      throw new SignedOutError();
    }
    state.signIn(token);
    tabs.announce('token', toShared(token));
    return token;
  };

  return () => {
    const { token: stale, epoch: began } = state;
    if (renewal?.epoch === began) return renewal.promise;
    const promise = tabs
      .exclusively(() => renewOnce(stale, began))
      .finally(() => {
        if (renewal?.promise === promise) renewal = undefined;
      });
    renewal = { epoch: began, promise };
    return promise;
  };
}

/** One request for a token, however often it must be repeated; always with the same refresh token. */
function refresh(
  { endpoints, backOff, state }: RenewalOptions,
  refreshToken: string | undefined,
  began: number,
) {
  const ask = async () => {
    // Nobody would believe the answer, and the cookie may be of a later login.
    if (state.epoch !== began) return 'over' as const;
    const askedAt = performance.now();
    const parameters = { grant_type: 'refresh_token', refresh_token: refreshToken };
    const response = await endpoints.token(parameters);
    return { token: fromResponse(response, askedAt), successor: response.refreshToken };
  };
  return withBackOff(ask, backOff).catch((error) => {
    // Nothing else ends a session: trouble passes, and a mistake in the configuration is mended.
    if (error instanceof TokenRequestError && error.code === 'invalid_grant')
      return 'over' as const;
    throw error;
  });
}

/** What to go by when somebody has logged in or out while a question was under way. */
function overtaken({ token }: SessionState, stale: AccessToken | undefined): AccessToken {
  if (token === undefined) throw new SignedOutError();
  return stale === undefined ? token : ofSameLogin(stale.text, token);
}
