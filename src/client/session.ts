/** One person's session in this tab: who holds which access token, and how it is replaced. */
import { type AccessToken, accessToken, isOtherLogin } from './access-token.ts';
import type { AuthorizationServerEndpoints, TokenResponse } from './authorization-server.ts';
import { type BackOff, withBackOff } from './back-off.ts';
import { SignedOutError, TokenRequestError } from './errors.ts';
import type { RefreshTokenStore } from './refresh-token-store.ts';
import { connectTabs, noOtherTabs, type SharedToken, type SignOutReason } from './tabs.ts';

export interface SessionOptions {
  readonly endpoints: AuthorizationServerEndpoints;
  /** Undefined where the refresh token is a cookie that no script sees. */
  readonly store: RefreshTokenStore | undefined;
  /** The same in all tabs that share the cookie; undefined where there is none to share. */
  readonly tabsName: string | undefined;
  readonly backOff: BackOff;
  readonly onSignedIn: () => void;
  readonly onSignedOut: (reason: SignOutReason) => void;
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

type State =
  | { readonly status: 'unknown' | 'signed-out' }
  | { readonly status: 'signed-in'; readonly token: AccessToken };

export function createSession(options: SessionOptions): Session {
  const { endpoints, store, backOff } = options;
  let state: State = { status: 'unknown' };
  /** Moves with every login and sign-out, so that an answer to an older question is not believed. */
  let epoch = 0;
  /** Tells a login that somebody has logged out since it began, here or in another tab. */
  let logouts = 0;
  let pausedUntil = 0;
  let renewal: { readonly epoch: number; readonly promise: Promise<AccessToken> } | undefined;

  const held = (): AccessToken | undefined =>
    state.status === 'signed-in' ? state.token : undefined;

  const signIn = (token: AccessToken): void => {
    const isNew = state.status !== 'signed-in';
    state = { status: 'signed-in', token };
    if (isNew) queueMicrotask(options.onSignedIn);
  };

  const signOut = (reason: SignOutReason): void => {
    if (reason === 'logout') logouts++;
    // Two tabs that log out at once must not take each other's word for a later login.
    if (state.status === 'signed-out') return;
    const wasSignedIn = state.status === 'signed-in';
    state = { status: 'signed-out' };
    epoch++;
    if (wasSignedIn) queueMicrotask(() => options.onSignedOut(reason));
  };

  const tabs =
    options.tabsName === undefined
      ? noOtherTabs
      : connectTabs(options.tabsName, {
          current: () => {
            const token = held();
            return token !== undefined && isFresh(token) ? toShared(token) : undefined;
          },
          onToken(shared) {
            // What a tab says that has not heard of a sign-out must not undo it.
            if (state.status === 'signed-out') return;
            const token = fromShared(shared);
            const own = held();
            // The life that a tab tells is measured anew each time and may look longer: an echo of a
            // token that an API has refused is none to go on with.
            if (own?.text === token.text) return;
            const isNewer = !own || own.expiresAtMilliseconds < token.expiresAtMilliseconds;
            const isOurs = !own || !isOtherLogin(own.text, token.text);
            if (isOurs && isNewer && isFresh(token)) signIn(token);
          },
          onLogin(shared) {
            if (held() !== undefined) return signOut('other-login');
            epoch++;
            return signIn(fromShared(shared));
          },
          onSignedOut: signOut,
        });

  const endSession = async (reason: SignOutReason): Promise<never> => {
    signOut(reason);
    tabs.announceSignOut(reason);
    await store?.clear();
    throw new SignedOutError();
  };

  /** What to go by when somebody has logged in or out while a question was under way. */
  const overtaken = (stale: AccessToken | undefined): AccessToken => {
    const token = held();
    if (token === undefined) throw new SignedOutError();
    return stale === undefined ? token : ofSameLogin(stale.text, token);
  };

  /** One request for a token, however often it must be repeated; always with the same refresh token. */
  const refresh = async (refreshToken: string | undefined, began: number) => {
    const ask = async () => {
      // Nobody would believe the answer, and the cookie may be of a later login.
      if (epoch !== began) return 'over' as const;
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
  };

  const renewOnce = async (stale: AccessToken | undefined, began: number): Promise<AccessToken> => {
    await tabs.askOthers();
    const found = held();
    if (epoch !== began || found !== stale) return overtaken(stale);
    const refreshToken = await store?.load();
    if (store !== undefined && refreshToken === undefined) return endSession('ended');
    const refreshed = await refresh(refreshToken, began);
    if (epoch !== began) return overtaken(stale);
    if (refreshed === 'over') return endSession('ended');
    const { token, successor } = refreshed;
    // Durable before it is used: a client that loses its newest token holds a spent one.
    if (successor !== undefined) await store?.save(successor);
    if (epoch !== began) return overtaken(stale);
    // The cookie is of somebody who has logged in in another tab, and this one has not heard of it.
    if (stale !== undefined && isOtherLogin(stale.text, token.text)) {
      signOut('other-login');
      throw new SignedOutError();
    }
    signIn(token);
    tabs.announce('token', toShared(token));
    return token;
  };

  const renew = (): Promise<AccessToken> => {
    const [stale, began] = [held(), epoch];
    if (renewal?.epoch === began) return renewal.promise;
    const promise = tabs
      .exclusively(() => renewOnce(stale, began))
      .finally(() => {
        if (renewal?.promise === promise) renewal = undefined;
      });
    renewal = { epoch: began, promise };
    return promise;
  };

  /**
   * Ends a session at the server: that of `refreshToken`, or of the cookie. In cookie mode nothing is sent
   * once `epoch` is no longer `ended`, for then the cookie may be of a later login.
   */
  const revoke = (refreshToken: string | undefined, ended: number): Promise<void> => {
    const ask = async () => {
      if (store !== undefined || epoch === ended) await endpoints.revoke({ token: refreshToken });
    };
    return withBackOff(ask, backOff).catch(ignoreMissingCookie);
  };

  /** What a login comes to that a logout has overtaken. */
  const takeBack = async (refreshToken: string | undefined): Promise<never> => {
    await revoke(refreshToken, epoch);
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
      const logoutsBefore = logouts;
      // A refresh under way would bring the cookie of the session before this one, and bring it later.
      return tabs.exclusively(async () => {
        if (logouts !== logoutsBefore) throw new SignedOutError();
        const askedAt = performance.now();
        const response = await endpoints.token(parameters);
        const { refreshToken } = response;
        if (logouts !== logoutsBefore) return takeBack(refreshToken);
        const began = ++epoch;
        if (refreshToken !== undefined) await store?.save(refreshToken);
        if (logouts !== logoutsBefore) return takeBack(refreshToken);
        if (epoch !== began) return;
        const token = fromResponse(response, askedAt);
        signIn(token);
        tabs.announce('login', toShared(token));
      });
    },

    async resume() {
      if (state.status === 'signed-out') state = { status: 'unknown' };
      try {
        if (held() === undefined) await renew();
        return true;
      } catch (error) {
        if (error instanceof SignedOutError) return false;
        throw error;
      }
    },

    async current() {
      if (state.status === 'signed-out') throw new SignedOutError();
      const token = held();
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
      const token = held();
      const another = token !== undefined && token.text !== refused ? token : await renew();
      return ofSameLogin(refused, another).text;
    },

    async logout() {
      signOut('logout');
      tabs.announceSignOut('logout');
      const ended = epoch;
      // The answer takes the cookie away, which must not be that of the next login.
      await tabs.exclusively(async () => {
        const refreshToken = await store?.load();
        if (store !== undefined && refreshToken === undefined) return;
        await revoke(refreshToken, ended);
        if (epoch === ended) await store?.clear();
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

/** What one person asked for is not done as somebody else. */
function ofSameLogin(stale: string, token: AccessToken): AccessToken {
  if (isOtherLogin(stale, token.text)) throw new SignedOutError();
  return token;
}

const isFresh = (token: AccessToken): boolean => performance.now() < token.renewAtMilliseconds;

const fromResponse = (response: TokenResponse, askedAt: number): AccessToken =>
  accessToken(
    { text: response.accessToken, scope: response.scope },
    response.expiresInSeconds * 1000,
    askedAt,
  );

const fromShared = ({ lifeMilliseconds, ...token }: SharedToken): AccessToken =>
  accessToken(token, lifeMilliseconds, performance.now());

const toShared = ({ text, scope, expiresAtMilliseconds }: AccessToken): SharedToken => ({
  text,
  scope,
  lifeMilliseconds: expiresAtMilliseconds - performance.now(),
});
