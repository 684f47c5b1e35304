// Elements that show how long ago something was. One timer keeps all of them right.

import { ago, moment } from './format.js';
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

setInterval(() => {
  for (const element of document.querySelectorAll('[data-ago]')) {
    if (element instanceof HTMLElement) setText(element, ago(element.dataset.ago));
  }
}, 1000);
