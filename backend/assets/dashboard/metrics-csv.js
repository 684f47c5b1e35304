// The metric points of an operation as a file. They come in pages, which become one table.

import { asApiError, operationPath, queryString } from './api.js';
import { save } from './download.js';
import { h, setText } from './dom.js';
import { fetchWithToken } from './token-fetch.js';

// The most that a page has.
const PAGE = 10000;

/**
 * All points, with one line of headings.
 * @param {string} id
 * @returns {Promise<string[]>} the pages
 */
export async function readCsv(id) {
  /** @type {string[]} */
  const pages = [];
  let cursor = '';
  for (let hasMore = true; hasMore;) {
    const query = queryString({ format: 'csv', limit: PAGE, cursor });
    const response = await fetchWithToken('GET', `${operationPath(id)}/metrics${query}`, () => ({}));
    if (!response.ok) {
      const problem = await response.json().catch(() => null);
      throw new Error(problem?.error ?? `the backend answered ${response.status}`);
    }
    const page = await response.text();
    pages.push(pages.length === 0 ? page : page.slice(page.indexOf('\n') + 1));
    cursor = response.headers.get('x-ktrdr-cursor') ?? '';
    hasMore = response.headers.get('x-ktrdr-has-more') === 'true';
  }
  return pages;
}

/**
 * A button that saves them, and a place that says why that was not possible.
 * @param {string} id
 */
export function csvButton(id) {
  const note = h('p', { class: 'problem', role: 'alert', hidden: true });
  const element = h('button', { type: 'button', class: 'button small', onclick: download }, 'CSV');
  element.title = 'All points as a table';

  async function download() {
    element.disabled = true;
    note.hidden = true;
    try {
      save(new Blob(await readCsv(id), { type: 'text/csv' }), `${id}-metrics.csv`);
    } catch (thrown) {
      setText(note, `The download failed: ${asApiError(thrown).message}`);
      note.hidden = false;
    }
    element.disabled = false;
  }

  return { element, note };
}
