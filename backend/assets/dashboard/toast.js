// Short messages at the edge of the page.

import { byId, h } from './dom.js';

const SHOWN_MS = 5000;
const ERROR_SHOWN_MS = 12000;

/**
 * @param {string} message
 * @param {'info' | 'warn' | 'error'} kind
 * @param {{ label: string, address: string }} [link] where to go on
 */
export function toast(message, kind = 'info', link) {
  const dismiss = h('button', {
    type: 'button', class: 'plain', 'aria-label': 'Dismiss', onclick: () => item.remove(),
  }, '×');
  const item = h('div', { class: `toast ${kind}` },
    h('span', null, message, link && [' ', h('a', { href: link.address }, link.label)]), dismiss);

  byId('toasts').append(item);
  setTimeout(() => item.remove(), kind === 'error' ? ERROR_SHOWN_MS : SHOWN_MS);
}
