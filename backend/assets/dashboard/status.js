// The states of operations and workers.

import { h, show } from './dom.js';
import { icon } from './icons.js';
import { isDelayed, isExpired } from './waiting.js';

/** @type {Api.Status[]} */
export const STATUSES = ['pending', 'running', 'completed', 'failed', 'cancelled'];

/**
 * Whether nothing can follow this status.
 * @param {Api.Status} status
 */
export function isTerminal(status) {
  return status === 'completed' || status === 'failed' || status === 'cancelled';
}

/**
 * Whether `one` is newer than `other`, both documents of the same operation.
 *
 * A terminal document is never older than one that is not: the time of progress comes from the
 * worker's clock, the time of the end from the stream's.
 * @param {Api.Operation} one
 * @param {Api.Operation} other
 */
export function isNewer(one, other) {
  return one.updated_at > other.updated_at && (isTerminal(one.status) || !isTerminal(other.status));
}

/**
 * The label of an operation's chip.
 * @param {Api.Operation} operation
 */
export function statusLabel(operation) {
  const { status, cancel_requested_at: cancelRequestedAt } = operation;
  if (cancelRequestedAt && !isTerminal(status)) return 'cancelling';
  if (isDelayed(operation)) return 'delayed';
  return isExpired(operation) ? 'expired' : status;
}

/** A status as icon, word and colour, so that it reads without the colour. */
export function statusChip() {
  const element = h('span', { class: 'chip' });
  let shown = '';
  return {
    element,
    /**
     * @param {string} status
     * @param {string} label
     */
    update(status, label = status) {
      if (shown === status + label) return;
      shown = status + label;
      element.dataset.status = status;
      show(element, icon(status), label);
    },
  };
}
