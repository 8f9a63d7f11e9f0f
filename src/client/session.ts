/** One person's session in this tab: how it begins, goes on, and ends. */
import { fromResponse } from './access-token.ts';
import type { AuthorizationServerEndpoints } from './authorization-server.ts';
import { type BackOff, withBackOff } from './back-off.ts';
import { SignedOutError, TokenRequestError } from './errors.ts';
import type { RefreshTokenStore } from './refresh-token-store.ts';
import { createRenewal } from './renewal.ts';
import { createSessionState, ofSameLogin, type SessionEvents, toShared } from './session-state.ts';
import { connectTabs, noOtherTabs } from './tabs.ts';

export interface SessionOptions extends SessionEvents {
  readonly endpoints: AuthorizationServerEndpoints;
  /** Undefined where the refresh token is a cookie that no script sees. */
  readonly store: RefreshTokenStore | undefined;
  /** The same in all tabs that share the cookie; undefined where there is none to share. */
  readonly tabsName: string | undefined;
  readonly backOff: BackOff;
}

/** RFC 6749 §4.3.2. */
export interface PasswordLogin {
  readonly username: string;
  readonly password: string;
  /** All that the client may have, if left out. */
  readonly scope?: readonly string[];
  /** What the person will recognise this device by. */
  readonly deviceLabel?: string;
}

export interface Session {
  readonly isSignedIn: boolean;
  login(login: PasswordLogin): Promise<void>;
  resume(): Promise<boolean>;
  /** A good token; one that is about to expire is renewed meanwhile. @throws SignedOutError */
  current(): Promise<string>;
  /**
   * Another token of the same login as the one that an API has refused.
   *
   * @throws SignedOutError
   */
  replace(refused: string): Promise<string>;
  logout(): Promise<void>;
  close(): void;
}

/** A renewal in advance that was refused is not tried again for so long: every request of the app would. */
const PAUSE_MILLISECONDS = 5000;

export function createSession(options: SessionOptions): Session {
  const { endpoints, store, backOff, tabsName } = options;
  const state = createSessionState(options);
  /** Only the server knows whether a page that was away still shows what its person may see. */
  const onReturn = () => {
    if (state.token !== undefined) renew().catch(() => {});
  };
  const tabs =
    tabsName === undefined ? noOtherTabs : connectTabs(tabsName, { ...state.tabEvents, onReturn });
  const renew = createRenewal({ endpoints, store, backOff, state, tabs });
  let pausedUntil = 0;

  /**
   * Ends a session at the server: that of `refreshToken`, or of the cookie. In cookie mode nothing is sent
   * once `epoch` is no longer `ended`, for then the cookie may be of a later login.
   */
  const revoke = (refreshToken: string | undefined, ended: number): Promise<void> => {
    const ask = async () => {
      if (store !== undefined || state.epoch === ended)
        await endpoints.revoke({ token: refreshToken });
    };
    return withBackOff(ask, backOff).catch(ignoreMissingCookie);
  };

  /** What a login comes to that a logout has overtaken. */
  const takeBack = async (refreshToken: string | undefined): Promise<never> => {
    await revoke(refreshToken, state.epoch);
    if (refreshToken !== undefined && (await store?.load()) === refreshToken) await store?.clear();
    throw new SignedOutError();
  };

  return {
    get isSignedIn() {
      return state.status === 'signed-in';
    },

    login({ username, password, scope, deviceLabel }) {
      const parameters = {
        grant_type: 'password',
        username,
        password,
        scope: scope?.join(' '),
        device_label: deviceLabel,
      };
      const logoutsBefore = state.logouts;
      // A refresh under way would bring the cookie of the session before this one, and bring it later.
      return tabs.exclusively(async () => {
        if (state.logouts !== logoutsBefore) throw new SignedOutError();
        const askedAt = performance.now();
        const response = await endpoints.token(parameters);
        const { refreshToken } = response;
        if (state.logouts !== logoutsBefore) return takeBack(refreshToken);
        const began = state.beginLogin();
        if (refreshToken !== undefined) await store?.save(refreshToken);
        if (state.logouts !== logoutsBefore) return takeBack(refreshToken);
        if (state.epoch !== began) return;
        const token = fromResponse(response, askedAt);
        state.signIn(token);
        tabs.announce('login', toShared(token));
      });
    },

    async resume() {
      state.forgetSignOut();
      try {
        if (state.token === undefined) await renew();
        return true;
      } catch (error) {
        if (error instanceof SignedOutError) return false;
        throw error;
      }
    },

    async current() {
      if (state.status === 'signed-out') throw new SignedOutError();
      const { token } = state;
      const now = performance.now();
      if (token === undefined || now >= token.expiresAtMilliseconds) return (await renew()).text;
      if (now >= Math.max(token.renewAtMilliseconds, pausedUntil)) {
        // Whoever asks when the token has expired will hear of what went wrong.
        renew().catch(() => {
          pausedUntil = performance.now() + PAUSE_MILLISECONDS;
        });
      }
      return token.text;
    },

    async replace(refused) {
      if (state.status === 'signed-out') throw new SignedOutError();
      const { token } = state;
      const another = token !== undefined && token.text !== refused ? token : await renew();
      return ofSameLogin(refused, another).text;
    },

    async logout() {
      state.signOut('logout');
      tabs.announceSignOut('logout');
      const ended = state.epoch;
      // The answer takes the cookie away, which must not be that of the next login.
      await tabs.exclusively(async () => {
        const refreshToken = await store?.load();
        if (store !== undefined && refreshToken === undefined) return;
        await revoke(refreshToken, ended);
        if (state.epoch === ended) await store?.clear();
      });
    },

    close: tabs.close,
  };
}

/** A session whose cookie is gone cannot be ended again. */
function ignoreMissingCookie(error: unknown): void {
  const isMissing = error instanceof TokenRequestError && error.code === 'invalid_request';
  if (!isMissing) throw error;
}
