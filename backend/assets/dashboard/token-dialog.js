// Asks for the token of this tab, and the button that forgets it.

import { byId, h, setAttribute, setText } from './dom.js';
import { fetchWith } from './token-fetch.js';
import { tabToken } from './token.js';

const TIMEOUT_MS = 20000;

// A small answer that needs nothing but the scope `read`.
const TRIAL = '/api/v1/operations?limit=1';

/**
 * Tries a token.
 * @param {string} value
 * @returns {Promise<string>} why it does not do; empty when it does
 */
async function problemWith(value) {
  if (value === '') return 'Enter a token.';
  // Other characters cannot be in a header.
  if (!/^[\x21-\x7e]+$/.test(value)) return 'A token has no spaces and no special characters.';

  let response;
  try {
    // TypeScript 4.8 does not know this function yet.
    const signal = /** @type {any} */ (AbortSignal).timeout(TIMEOUT_MS);
    response = await fetchWith(value, TRIAL, { signal });
  } catch {
    return 'The backend cannot be reached. Try again.';
  }
  if (response.status !== 401 && response.status !== 403) return '';
  const problem = await response.json().catch(() => null);
  return `${problem?.error ?? `The server answered ${response.status}`}.`;
}

class TokenDialog {
  #reason = h('p', { class: 'problem', hidden: true });
  #input = h('input', {
    id: 'token', type: 'password', autocomplete: 'off', spellcheck: 'false', autofocus: true,
    'aria-describedby': 'token-problem',
  });
  #problem = h('p', { class: 'field-error', id: 'token-problem', role: 'alert' });
  #submit = h('button', { type: 'submit', class: 'button primary' }, 'Use this token');
  #element;

  constructor() {
    const cancel = h('button', {
      type: 'button', class: 'button', onclick: () => this.#element.close(),
    }, 'Not now');
    this.#element = h('dialog', {
      class: 'card token-dialog', 'aria-labelledby': 'token-title', onclose: () => this.#clear(),
    },
    h('form', {
      novalidate: true, onsubmit: (/** @type {SubmitEvent} */ event) => this.#take(event),
    },
      h('h2', { id: 'token-title' }, 'This server asks for a token'),
      this.#reason,
      h('p', null, 'A token says who you are and what you may do. You get one from whoever runs '
        + 'the server:'),
      h('pre', null,
        'ktrdr-backend token new NAME \\\n  --scopes read,start,cancel --file tokens.toml'),
      h('p', { class: 'muted' },
        'Only this tab keeps it, until you close the tab or sign out.'),
      h('div', { class: 'field' }, h('label', { for: 'token' }, 'Token'), this.#input,
        this.#problem),
      h('div', { class: 'buttons' }, this.#submit, cancel)));
    document.body.append(this.#element);
  }

  /** Shows the dialog, unless it is there. Closing it gives the focus back. */
  show() {
    const reason = tabToken.refusal;
    this.#reason.hidden = reason === '';
    setText(this.#reason, `${reason}.`);
    if (!this.#element.open) this.#element.showModal();
  }

  #clear() {
    this.#input.value = '';
    this.#complain('');
  }

  /** @param {string} problem */
  #complain(problem) {
    setText(this.#problem, problem);
    setAttribute(this.#input, 'aria-invalid', problem === '' ? null : 'true');
  }

  /** @param {SubmitEvent} event */
  async #take(event) {
    event.preventDefault();
    const value = this.#input.value.trim();
    this.#complain('');
    this.#submit.disabled = true;
    const problem = await problemWith(value);
    this.#submit.disabled = false;
    // Closed meanwhile: the user does not want it.
    if (!this.#element.open) return;

    if (problem !== '') {
      this.#complain(problem);
      this.#input.select();
      return;
    }
    this.#element.close();
    tabToken.take(value);
  }
}

/**
 * Asks for a token when the server wants one, and keeps the button of the page's header right:
 * "Sign out" with a token, "Enter a token" while one is wanted, and hidden on a server that asks
 * for none.
 */
export function handleToken() {
  const button = byId('token-button');
  /** @type {TokenDialog | undefined} */
  let dialog;

  function ask() {
    dialog ??= new TokenDialog();
    dialog.show();
  }

  function signOut() {
    tabToken.forget();
    // Ends the streams, and nothing that was shown stays in the page.
    location.reload();
  }

  function update() {
    button.hidden = !tabToken.isUsed;
    setText(button, tabToken.isWanted ? 'Enter a token' : 'Sign out');
  }

  button.addEventListener('click', () => (tabToken.isWanted ? ask() : signOut()));
  tabToken.onChange(() => {
    update();
    if (tabToken.isWanted) ask();
  });
  // The browser may bring back a page that it kept, after a sign-out on the next one.
  addEventListener('pageshow', (event) => {
    if (event.persisted && tabToken.isOutdated) location.reload();
  });
  update();
}
