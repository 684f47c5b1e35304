// Shapes that stand where content will be, until the first answer.

import { h } from './dom.js';

/**
 * Rows of a table. They are a body of their own; remove it when there is content.
 * @param {number} columns
 * @param {number} rows
 */
export function skeletonBody(columns, rows = 8) {
  const row = () => h('tr', null,
    Array.from({ length: columns }, () => h('td', null, h('span', { class: 'skeleton' }))));
  return h('tbody', { class: 'loading', 'aria-hidden': 'true' },
    Array.from({ length: rows }, row));
}

/**
 * Lines of a card.
 * @param {number} lines
 */
export function skeletonLines(lines = 4) {
  return h('div', { class: 'loading', 'aria-hidden': 'true' },
    Array.from({ length: lines }, () => h('span', { class: 'skeleton' })));
}
