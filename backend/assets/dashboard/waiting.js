// What an operation waits for. No elements here.

import { moment, timeOfDay, until } from './format.js';
import { serverNow } from './server-clock.js';

/** @typedef {Pick<Api.Operation, 'status' | 'start_at' | 'queue_position'>} Waiting */

/**
 * Whether it must not start yet.
 * @param {Waiting} operation
 */
export function isDelayed({ status, start_at: startAt, queue_position: position }) {
  return status === 'pending' && !position && Date.parse(startAt ?? '') > serverNow();
}

/**
 * Whether it ended because no attempt had started in time.
 * @param {Pick<Api.Operation, 'status' | 'error'>} operation
 */
export const isExpired = ({ status, error }) => status === 'failed' && error?.code === 'expired';

/**
 * What is said of a failed operation: the message of its failure. The one of an operation that has
 * expired is told with the time as people read it.
 * @param {Api.Operation} operation
 */
export function failureText(operation) {
  const { error_message: message, expires_at: expiresAt } = operation;
  return isExpired(operation) && expiresAt
    ? `No attempt had started by ${moment(expiresAt)}.` : message ?? '';
}

/**
 * Where a pending operation waits.
 * @param {Api.Operation} operation
 */
export function placeInQueue(operation) {
  const { queue, queue_position: position, retry_at: retryAt, start_at: startAt } = operation;
  const { waits_for_permit: permit } = operation;
  if (retryAt) return `Next attempt at ${timeOfDay(retryAt)}`;
  if (isDelayed(operation)) return `Starts ${until(startAt)}`;
  if (permit) return `Waits for a permit of ${permit.key}, ${permit.held} of ${permit.limit} held`;
  return position ? `Place ${position} of the queue “${queue}”` : 'Waits for a worker';
}

/**
 * Remarks about the times that it was given; none when it was given none or they no longer matter.
 * @param {Api.Operation} operation
 */
export function timeNotes(operation) {
  const { status, start_at: startAt, expires_at: expiresAt } = operation;
  if (status !== 'pending') return [];
  return [
    isDelayed(operation) ? `It starts at ${moment(startAt)} at the earliest.` : '',
    // Once an attempt has started, it no longer expires.
    expiresAt && operation.attempt === 0
      ? `It expires at ${moment(expiresAt)} if no attempt has started by then.` : '',
  ].filter(Boolean);
}
