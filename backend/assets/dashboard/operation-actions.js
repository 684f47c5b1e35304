// The buttons that cancel, retry and resume an operation.

import { operationAddress } from './addresses.js';
import { api, asApiError } from './api.js';
import { askBefore } from './confirm.js';
import { h, setText } from './dom.js';
import { isTerminal } from './status.js';
import { liveStream } from './stream.js';
import { toast } from './toast.js';

/**
 * Keeps the right buttons in `parent`. Buttons that stay right stay the same elements: somebody may
 * be about to press one.
 * @param {HTMLElement} parent
 * @param {'small' | ''} size
 */
export function actionsIn(parent, size = '') {
  let shown = '';
  return (/** @type {Api.Operation} */ operation) => {
    const { operation_id: id, status, cancel_requested_at: cancelRequestedAt } = operation;
    const key = JSON.stringify([
      id, isTerminal(status), status === 'completed', Boolean(cancelRequestedAt),
      operation.attempt > 0,
    ]);
    if (key === shown) return;
    shown = key;
    parent.replaceChildren(...actionButtons(operation, size));
  };
}

/**
 * @param {Api.Operation} operation
 * @param {'small' | ''} size
 */
function actionButtons(operation, size) {
  const { operation_id: id, status } = operation;
  if (!isTerminal(status)) {
    return [operation.cancel_requested_at ? cancellingButton(size) : cancelButton(id, size)];
  }
  if (status === 'completed') return [];

  const retry = actionButton('Retry', id, size, () => startAgain(api.retry(id), 'Retried'));
  // A row of a table has no room for a second button. Without an attempt there is no checkpoint.
  if (size === 'small' || operation.attempt === 0) return [retry];
  return [retry, actionButton('Resume', id, size, () => startAgain(api.resume(id), 'Resumed'))];
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
    await api.cancel(id);
    toast(`Cancel of ${id} requested`);
  };
  return actionButton('Cancel', id, `danger ${size}`, cancel, 'Really cancel?');
}

/**
 * @param {string} label
 * @param {string} id
 * @param {string} classes
 * @param {() => Promise<void>} act
 * @param {string} [question] asked before the button acts
 */
function actionButton(label, id, classes, act, question) {
  const button = h('button',
    { type: 'button', class: `button ${classes}`, 'aria-label': `${label} ${id}` }, label);
  const isConfirmed = question ? askBefore(button, question, id) : () => true;
  const refusal = h('p', { class: 'field-error', role: 'alert' });

  button.addEventListener('click', async (event) => {
    if (!isConfirmed(event)) return;
    button.disabled = true;
    refusal.remove();
    try {
      await act();
    } catch (thrown) {
      complain(asApiError(thrown));
    }
    button.disabled = false;
  });

  /** @param {import('./api.js').ApiError} error */
  function complain(error) {
    liveStream.checkAfter(error);
    if (error.scope === undefined) {
      toast(error.message, 'error');
      return;
    }
    // The next press does not help either, so it stays beside the button.
    setText(refusal, `Needs the scope ${error.scope}`);
    button.after(refusal);
  }

  return button;
}

/**
 * Goes to the new operation once it is there.
 * @param {Promise<Api.Started>} request
 * @param {string} verb
 */
async function startAgain(request, verb) {
  const { operation_id: id, warning } = await request;
  if (warning) toast(warning, 'warn');
  else toast(`${verb} as ${id}`);
  location.hash = operationAddress(id);
}
