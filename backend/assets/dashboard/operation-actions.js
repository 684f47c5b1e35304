// The buttons that cancel, retry and resume an operation.

import { shortId } from './about.js';
import { actionButton } from './action-button.js';
import { operationAddress } from './addresses.js';
import { api } from './api.js';
import { h } from './dom.js';
import { RequestKey } from './request-key.js';
import { isTerminal } from './status.js';
import { toast } from './toast.js';

/**
 * Keeps the right buttons in `parent`. Buttons that stay right stay the same elements: somebody may
 * be about to press one.
 * @param {HTMLElement} parent
 * @param {'small' | ''} size small ones are in a row of a list, which the user does not leave
 */
export function actionsIn(parent, size = '') {
  let shown = '';
  return (/** @type {Api.Operation} */ operation, hasCheckpoint = false) => {
    const { operation_id: id, status, cancel_requested_at: cancelRequestedAt } = operation;
    const key = JSON.stringify([
      id, isTerminal(status), status === 'completed', Boolean(cancelRequestedAt),
      operation.retried_as ?? null, hasCheckpoint,
    ]);
    if (key === shown) return;
    shown = key;
    const hadFocus = parent.contains(document.activeElement);
    parent.replaceChildren(...actionButtons(operation, size, hasCheckpoint));
    // Not to a button: the next press would do something else than the last one.
    const link = parent.querySelector('a');
    if (hadFocus) link?.focus();
  };
}

/**
 * @param {Api.Operation} operation
 * @param {'small' | ''} size
 * @param {boolean} hasCheckpoint
 */
function actionButtons(operation, size, hasCheckpoint) {
  const { operation_id: id, status, retried_as: retriedAs } = operation;
  if (!isTerminal(status)) {
    return [operation.cancel_requested_at ? cancellingButton(size) : cancelButton(id, size)];
  }
  if (status === 'completed') return [];
  // Who looks through a list of failures sees which have been dealt with.
  if (size === 'small' && retriedAs) return [retriedLink(retriedAs)];

  const retry = againButton('Retry', 'Retried', id, size, api.retry);
  // A row of a table has no room for a second button.
  if (size === 'small' || !hasCheckpoint) return [retry];
  return [againButton('Resume', 'Resumed', id, size, api.resume), retry];
}

/** @param {string} id */
function retriedLink(id) {
  return h('a', { class: 'retried', href: operationAddress(id), title: `Retried as ${id}` },
    'Retried');
}

/** @param {string} size */
function cancellingButton(size) {
  return h('button', { type: 'button', class: `button ${size}`, disabled: true }, 'Cancelling…');
}

/**
 * @param {string} id
 * @param {string} size
 */
function cancelButton(id, size) {
  const cancel = async () => {
    const { status } = await api.cancel(id);
    toast(status === 'cancelled' ? `Cancelled ${shortId(id)}` : `Asked ${shortId(id)} to stop`);
  };
  return actionButton('Cancel', id, `danger ${size}`, cancel, 'Really cancel?');
}

/**
 * A button that starts the same request as a new operation.
 * @param {string} label
 * @param {string} verb
 * @param {string} id
 * @param {'small' | ''} size
 * @param {(id: string, key: string) => Promise<Api.Started>} send
 */
function againButton(label, verb, id, size, send) {
  const key = new RequestKey();

  async function startAgain() {
    const { operation_id: newId, warning } = await send(id, key.of(label));
    key.accepted();

    const address = operationAddress(newId);
    const link = size === 'small' ? { label: 'Show it', address } : undefined;
    if (warning) toast(warning, 'warn', link);
    else toast(`${verb} as ${shortId(newId)}.`, 'info', link);
    if (size !== 'small') location.hash = address;
  }

  return actionButton(label, id, size, startAgain);
}
