/**
 * Keeps the tabs of one app in step: one of them asks for a token and the others get it.
 *
 * It saves work and is not what keeps a session safe: tabs that cannot see each other ask for
 * themselves, and the server's retry window gives both the same token.
 */

export interface SharedToken {
  readonly text: string;
  readonly lifeMilliseconds: number;
}

/** Why a session is over for this tab. */
export type SignOutReason =
  /** The authorization server says so: expired, revoked, or its cookie is gone. */
  | 'ended'
  /** Somebody has logged out, here or in another tab. */
  | 'logout'
  /** Somebody has logged in anew in another tab, who may be somebody else. */
  | 'other-login';

export interface TabEvents {
  /** What this tab has to give, if it is still of use. */
  readonly current: () => SharedToken | undefined;
  readonly onToken: (token: SharedToken) => void;
  readonly onLogin: (token: SharedToken) => void;
  readonly onSignedOut: (reason: SignOutReason) => void;
  /** The page is shown again after a time in which it was told nothing. */
  readonly onReturn: () => void;
}

export interface Tabs {
  /** Runs `work` while no other tab does, or when waiting for it has taken too long. */
  exclusively<T>(work: () => Promise<T>): Promise<T>;
  /** Asks the others for a token; they pass it to `onToken`. Resolves when one came, or nobody has any. */
  askOthers(): Promise<void>;
  announce(kind: 'token' | 'login', token: SharedToken): void;
  announceSignOut(reason: SignOutReason): void;
  close(): void;
}

type Message =
  | { readonly kind: 'question' }
  | { readonly kind: 'token' | 'login'; readonly token: SharedToken; readonly sentAt: number }
  | { readonly kind: 'signed-out'; readonly reason: SignOutReason };

/** Other tabs answer at once or, while they are frozen, not at all. */
const ANSWER_MILLISECONDS = 100;
/** A tab that was suspended with the lock in its hand must not stop the others. */
const LOCK_PATIENCE_MILLISECONDS = 10_000;

/** A tab by itself: where there are no others, or nothing to reach them by. */
export const noOtherTabs: Tabs = {
  exclusively: (work) => work(),
  askOthers: async () => {},
  announce: () => {},
  announceSignOut: () => {},
  close: () => {},
};

/** @param name the same in all tabs of one app, and public */
export function connectTabs(name: string, events: TabEvents): Tabs {
  if (typeof BroadcastChannel === 'undefined') return noOtherTabs;
  const channel = new BroadcastChannel(name);
  // Where a page is rendered on a server, an open channel would keep the process from ending.
  (channel as { unref?: () => void }).unref?.();
  let isOpen = true;
  // A client that was closed still works, by itself.
  const send = (message: Message) => isOpen && channel.postMessage(message);
  const announce: Tabs['announce'] = (kind, token) =>
    void send({ kind, token, sentAt: Date.now() });
  let noteAnswer = () => {};

  channel.onmessage = (event: MessageEvent) => {
    const data: Message = event.data;
    switch (data.kind) {
      case 'question': {
        const token = events.current();
        if (token !== undefined) announce('token', token);
        return;
      }
      case 'token':
        events.onToken(aged(data.token, data.sentAt));
        return noteAnswer();
      case 'login':
        return events.onLogin(aged(data.token, data.sentAt));
      case 'signed-out':
        return events.onSignedOut(data.reason);
    }
  };

  // What is said to a page in a browser's back-forward cache is lost, logouts too.
  const onPageShow = (event: Event) => {
    if ((event as Event & { persisted?: boolean }).persisted) events.onReturn();
  };
  const page = globalThis as Partial<EventTarget>;
  page.addEventListener?.('pageshow', onPageShow);

  return {
    exclusively: (work) => exclusively(name, work),
    async askOthers() {
      const answered = new Promise<void>((resolve) => {
        noteAnswer = resolve;
      });
      send({ kind: 'question' });
      await Promise.race([answered, wait(ANSWER_MILLISECONDS)]);
    },
    announce,
    announceSignOut: (reason) => void send({ kind: 'signed-out', reason }),
    close: () => {
      isOpen = false;
      channel.close();
      page.removeEventListener?.('pageshow', onPageShow);
    },
  };
}

/** A tab that was frozen reads its letters late. */
const aged = (token: SharedToken, sentAt: number): SharedToken => ({
  ...token,
  lifeMilliseconds: token.lifeMilliseconds - Math.max(0, Date.now() - sentAt),
});

async function exclusively<T>(name: string, work: () => Promise<T>): Promise<T> {
  const locks = globalThis.navigator?.locks;
  // Pages over plain HTTP have none.
  if (locks === undefined) return work();
  let isStarted = false;
  const start = () => {
    isStarted = true;
    return work();
  };
  try {
    const signal = AbortSignal.timeout(LOCK_PATIENCE_MILLISECONDS);
    return (await locks.request(name, { signal }, start)) as T;
  } catch (error) {
    if (isStarted) throw error;
    return work();
  }
}

const wait = (milliseconds: number) => new Promise((resolve) => setTimeout(resolve, milliseconds));
