// A table of figures.

import { h } from './dom.js';

/**
 * The first column has names.
 * @param {string[]} columns
 * @param {HTMLElement} body
 */
export function figureTable(columns, body) {
  const heads = columns.map((name, at) =>
    h('th', { scope: 'col', class: at > 0 ? 'num' : null }, name));
  return h('div', { class: 'scroll' },
    h('table', { class: 'grid' }, h('thead', null, h('tr', null, heads)), body));
}
