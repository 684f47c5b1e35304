// Elements that show how long ago something was, or how long it takes until it comes. One timer keeps
// all of them right.

import { ago, moment, until } from './format.js';
import { setText } from './dom.js';

/**
 * Shows the age of a time in an element, from now on.
 * @param {HTMLElement} element
 * @param {string | null | undefined} time
 */
export function showAge(element, time) {
  if (element.dataset.ago !== (time ?? '')) {
    element.dataset.ago = time ?? '';
    element.title = time ? moment(time) : '';
  }
  setText(element, ago(time));
}

/**
 * Shows in an element how long it takes until a time comes, from now on.
 * @param {HTMLElement} element
 * @param {string | null | undefined} time
 */
export function showUntil(element, time) {
  if (element.dataset.until !== (time ?? '')) {
    element.dataset.until = time ?? '';
    element.title = time ? moment(time) : '';
  }
  setText(element, until(time));
}

setInterval(() => {
  for (const element of document.querySelectorAll('[data-ago], [data-until]')) {
    if (!(element instanceof HTMLElement)) continue;
    if (element.dataset.ago !== undefined) setText(element, ago(element.dataset.ago));
    else setText(element, until(element.dataset.until));
  }
}, 1000);
