/** The page: who is signed in, and what the API says to them. No token is ever in this code's hands. */
import { createTokenClient, SignedOutError, TokenRequestError } from '../client.ts';

interface Servers {
  readonly authorizationServer: string;
  readonly api: string;
  readonly clientId: string;
}

const { authorizationServer, api, clientId }: Servers = await (await fetch('/servers.json')).json();

const element = <Type extends HTMLElement = HTMLElement>(id: string): Type => {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`The page has no element "${id}".`);
  return found as Type;
};

const show = (isSignedIn: boolean, text: string): void => {
  element('status').textContent = text;
  element('login').hidden = isSignedIn;
  element('app').hidden = !isSignedIn;
};

const reasons = {
  ended: 'Your session has ended. Please log in again.',
  logout: 'You are logged out.',
  'other-login': 'Somebody has logged in in another tab. Load the page again to go on.',
};

/** Nothing of a person stays in the page for whoever comes next. */
const forget = (): void => {
  element('notes').replaceChildren();
  element<HTMLFormElement>('write').reset();
};

const client = createTokenClient({
  authorizationServer,
  clientId,
  delivery: 'cookie',
  apiOrigins: [api],
  onSignedIn: () => attempt(readNotes),
  onSignedOut: (reason) => {
    forget();
    show(false, reasons[reason]);
  },
});

async function readNotes(): Promise<void> {
  await showNotes(await client.fetch(`${api}/notes`));
}

async function showNotes(response: Response): Promise<void> {
  if (!response.ok) throw new Error(`The API answers ${response.status}.`);
  const notes: string[] = await response.json();
  // An answer can be slower than a logout.
  if (!client.isSignedIn) return;
  element('notes').replaceChildren(
    ...notes.map((note) => {
      const item = document.createElement('li');
      item.textContent = note;
      // A word that is longer than a screen is wide would drag the whole page along.
      item.style.overflowWrap = 'anywhere';
      return item;
    }),
  );
  show(true, `Signed in. ${notes.length} ${notes.length === 1 ? 'note' : 'notes'}.`);
}

/** Whatever goes wrong is said; only the end of the session shows the login form. Tells whether all went well. */
async function attempt(work: () => Promise<void>): Promise<boolean> {
  try {
    await work();
    return true;
  } catch (error) {
    if (error instanceof SignedOutError) return false;
    const isWrongPassword = error instanceof TokenRequestError && error.code === 'invalid_grant';
    const text = isWrongPassword ? 'Wrong name or password.' : (error as Error).message;
    element('status').textContent = text;
    return false;
  }
}

const fieldOf = (form: HTMLFormElement, name: string): string =>
  String(new FormData(form).get(name) ?? '');

const onSubmit = (id: string, work: (form: HTMLFormElement) => Promise<void>): void => {
  const form = element<HTMLFormElement>(id);
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    // What did not arrive can be sent again.
    if (await attempt(() => work(form))) form.reset();
  });
};

onSubmit('login', (form) =>
  client.login({ username: fieldOf(form, 'username'), password: fieldOf(form, 'password') }),
);
onSubmit('write', async (form) => {
  const headers = { 'content-type': 'application/json' };
  const body = JSON.stringify({ note: fieldOf(form, 'note') });
  await showNotes(await client.fetch(`${api}/notes`, { method: 'POST', headers, body }));
});
element('read').addEventListener('click', () => attempt(readNotes));
element('logout').addEventListener('click', () => attempt(client.logout));

await attempt(async () => {
  if (!(await client.resume())) show(false, 'Please log in.');
});
