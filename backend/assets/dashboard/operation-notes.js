// Remarks above an operation: why it waits, that its worker is silent, where it comes from.

import { operationAddress } from './addresses.js';
import { h, show } from './dom.js';
import { timeOfDay } from './format.js';
import { timeNotes } from './waiting.js';

export function operationNotes() {
  const element = h('p', { class: 'note', hidden: true });
  /** @type {Api.Operation | null} */
  let current = null;
  let warning = '';
  let blocked = '';
  let shownKey = '';

  function draw() {
    if (!current) return;
    const { forced, retry_of: retryOf, retried_as: retriedAs, retry_at: retryAt } = current;
    const times = timeNotes(current);
    const key = JSON.stringify([forced, retryOf, retriedAs, retryAt, warning, blocked, times]);
    if (key === shownKey) return;
    shownKey = key;

    const notes = [
      warning,
      blocked,
      forced && 'The worker did not confirm the cancel in time; the backend closed the operation.',
      retryOf && ['Repeats ', h('a', { href: operationAddress(retryOf) }, retryOf), '.'],
      retriedAs
        && ['It was run again as ', h('a', { href: operationAddress(retriedAs) }, retriedAs), '.'],
      ...times,
      retryAt && `The next attempt starts at ${timeOfDay(retryAt)}.`,
    ].filter(Boolean);
    element.hidden = notes.length === 0;
    show(element, notes.map((note) => h('span', null, note, ' ')));
  }

  return {
    element,
    /** @param {Api.Operation} operation */
    update(operation) {
      current = operation;
      if (operation.status !== 'pending') blocked = '';
      if (operation.status !== 'running') warning = '';
      draw();
    },
    /** @param {string} text the backend's, about the worker that runs it */
    setWarning(text) {
      warning = text;
      draw();
    },
    /** @param {string} text why it does not start */
    setBlocked(text) {
      blocked = text;
      draw();
    },
  };
}
