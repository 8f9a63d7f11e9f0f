/** Who is signed in in this tab, as far as it has heard. Nothing here asks anybody. */
import { type AccessToken, accessToken, isOtherLogin } from './access-token.ts';
import { SignedOutError } from './errors.ts';
import type { SharedToken, SignOutReason, TabEvents } from './tabs.ts';

export interface SessionState {
  readonly status: State['status'];
  /** Undefined unless somebody is signed in. */
  readonly token: AccessToken | undefined;
  /** Moves with every login and sign-out, so that an answer to an older question is not believed. */
  readonly epoch: number;
  /** Tells a login that somebody has logged out since it began, here or in another tab. */
  readonly logouts: number;
  signIn(token: AccessToken): void;
  signOut(reason: SignOutReason): void;
  /** Begins another login: what is being asked for the one before it is over. @returns the new epoch */
  beginLogin(): number;
  /** Forgets a sign-out, after which the server has to say whether there is still a session. */
  forgetSignOut(): void;
  /** What the other tabs tell, and what they are told. */
  readonly tabEvents: Omit<TabEvents, 'onReturn'>;
}

export interface SessionEvents {
  readonly onSignedIn: () => void;
  readonly onSignedOut: (reason: SignOutReason) => void;
}

type State =
  | { readonly status: 'unknown' | 'signed-out' }
  | { readonly status: 'signed-in'; readonly token: AccessToken };

export function createSessionState({ onSignedIn, onSignedOut }: SessionEvents): SessionState {
  let state: State = { status: 'unknown' };
  let epoch = 0;
  let logouts = 0;

  const held = (): AccessToken | undefined =>
    state.status === 'signed-in' ? state.token : undefined;

  const signIn = (token: AccessToken): void => {
    const isNew = state.status !== 'signed-in';
    state = { status: 'signed-in', token };
    if (isNew) queueMicrotask(onSignedIn);
  };

  const signOut = (reason: SignOutReason): void => {
    if (reason === 'logout') logouts++;
    // Two tabs that log out at once must not take each other's word for a later login.
    if (state.status === 'signed-out') return;
    const wasSignedIn = state.status === 'signed-in';
    state = { status: 'signed-out' };
    epoch++;
    if (wasSignedIn) queueMicrotask(() => onSignedOut(reason));
  };

  const tabEvents: SessionState['tabEvents'] = {
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
  };

  return {
    get status() {
      return state.status;
    },
    get token() {
      return held();
    },
    get epoch() {
      return epoch;
    },
    get logouts() {
      return logouts;
    },
    signIn,
    signOut,
    beginLogin: () => ++epoch,
    forgetSignOut() {
      if (state.status === 'signed-out') state = { status: 'unknown' };
    },
    tabEvents,
  };
}

/**
 * What one person asked for is not done as somebody else.
 *
 * @throws SignedOutError
 */
export function ofSameLogin(stale: string, token: AccessToken): AccessToken {
  if (isOtherLogin(stale, token.text)) throw new SignedOutError();
  return token;
}

const isFresh = (token: AccessToken): boolean => performance.now() < token.renewAtMilliseconds;

const fromShared = ({ text, lifeMilliseconds }: SharedToken): AccessToken =>
  accessToken(text, lifeMilliseconds, performance.now());

/** What other tabs are told of a token: what is left of its life, for their clocks begin elsewhere. */
export const toShared = ({ text, expiresAtMilliseconds }: AccessToken): SharedToken => ({
  text,
  lifeMilliseconds: expiresAtMilliseconds - performance.now(),
});
