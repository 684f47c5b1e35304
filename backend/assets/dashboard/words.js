// Descriptions from the backend.

import { h } from './dom.js';

/**
 * A description with its `code` marked, as doc comments of Rust have it.
 * @param {unknown} description
 * @returns {Child}
 */
export function markCode(description) {
  return String(description ?? '').split('`')
    .map((part, at) => (at % 2 === 1 ? h('code', null, part) : part));
}
