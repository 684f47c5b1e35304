// Links that download a file. A link cannot carry a token, so with one the file is fetched into
// memory first, which has a limit.

import { asApiError } from './api.js';
import { curlCommand } from './curl.js';
import { h, show } from './dom.js';
import { count } from './format.js';
import { readUpTo } from './read-up-to.js';
import { fetchWithToken } from './token-fetch.js';
import { tabToken } from './token.js';

const MAX_BYTES = 64 * 1024 * 1024;
// How long a browser may take to begin with a download.
const KEEP_MS = 60000;

/**
 * Makes a link work with a token. On a server that asks for none, it stays as it is.
 * @param {HTMLElement} link its address is a path
 * @param {string} name of the file
 * @param {number} [size] in bytes, 0 when it is not known
 * @returns {HTMLElement} a place that says why a download is not possible
 */
export function downloadWithToken(link, name, size = 0) {
  const path = link.getAttribute('href') ?? '';
  const note = h('div', { class: 'note', role: 'alert', hidden: true });
  let isBusy = false;

  link.addEventListener('click', (event) => {
    if (!tabToken.isUsed) return;
    event.preventDefault();
    if (!isBusy) download();
  });

  async function download() {
    isBusy = true;
    link.setAttribute('aria-busy', 'true');
    note.hidden = true;
    try {
      await fetchAndSave();
    } catch (thrown) {
      say(`The download failed: ${asApiError(thrown).message}`);
    }
    link.removeAttribute('aria-busy');
    isBusy = false;
  }

  async function fetchAndSave() {
    if (size > MAX_BYTES) {
      sayTooLarge();
      return;
    }

    const response = await fetchWithToken('GET', path, () => ({}));
    if (!response.ok) {
      const problem = await response.json().catch(() => null);
      throw new Error(problem?.error ?? `the backend answered ${response.status}`);
    }
    const content = await readUpTo(response, MAX_BYTES);
    if (content === null) sayTooLarge();
    else save(content, name);
  }

  function sayTooLarge() {
    const command = curlCommand('GET', location.origin + path, { withToken: true, file: name });
    say(`More than ${count(MAX_BYTES)} bytes cannot be downloaded with a token in the browser. `
      + 'Use curl:', h('pre', null, command));
  }

  /** @param {...Child} content */
  function say(...content) {
    note.hidden = false;
    show(note, content);
  }

  return note;
}

/**
 * Gives a file to the user.
 * @param {Blob} content
 * @param {string} name
 */
export function save(content, name) {
  const address = URL.createObjectURL(content);
  h('a', { href: address, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(address), KEEP_MS);
}
