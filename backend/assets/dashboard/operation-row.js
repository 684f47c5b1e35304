// One operation as a row of a table.

import { operationAddress } from './addresses.js';
import { showAge } from './age.js';
import { h, keyedList, setAttribute, setText } from './dom.js';
import { duration, title } from './format.js';
import { actionsIn } from './operation-actions.js';
import { progressBar } from './progress-bar.js';
import { serverNow } from './server-clock.js';
import { statusChip, statusLabel } from './status.js';

const COLUMNS = ['Operation', 'Status', 'Progress', 'Worker', 'Created', 'Took'];

export function tableHead() {
  return h('thead', null, h('tr', null,
    COLUMNS.map((name) => h('th', { scope: 'col' }, name)),
    h('th', { scope: 'col' }, h('span', { class: 'unseen' }, 'Actions'))));
}

/**
 * Seconds from start to end, or to now while it runs.
 * @param {Api.Operation} operation
 */
export function secondsTaken({ status, started_at: startedAt, duration_seconds: seconds }) {
  return status === 'running' ? (serverNow() - Date.parse(startedAt ?? '')) / 1000 : seconds;
}

/** @param {Api.Operation} operation */
function workerOrPlace({ worker_id: worker, queue_position: position, queue }) {
  if (worker !== null) return worker;
  return position ? `#${position} in ${queue}` : '–';
}

/**
 * Rows of a table, one per operation.
 * @param {HTMLElement} body
 */
export function operationRows(body) {
  return keyedList(body, (/** @type {Api.Operation} */ one) => one.operation_id, operationRow);
}

function operationRow() {
  const link = h('a', { class: 'op-id' });
  const type = h('span', { class: 'op-type' });
  const chip = statusChip();
  const step = h('span', { class: 'step' });
  const bar = progressBar('Progress');
  const worker = h('td', { class: 'worker', 'data-label': 'Worker' });
  const created = h('span');
  const taken = h('td', { class: 'num-left', 'data-label': 'Took' });
  const actions = h('td', { class: 'actions' });
  const showActions = actionsIn(actions, 'small');
  const element = h('tr', null,
    h('th', { scope: 'row' }, link, type),
    h('td', { class: 'cell-status' }, chip.element),
    h('td', { class: 'cell-progress' }, bar.element, step),
    worker,
    h('td', { 'data-label': 'Created' }, created),
    taken, actions);
  /** @type {Api.Operation} */
  let current;

  /** @param {Api.Operation} operation */
  function update(operation) {
    const { operation_id: id, status } = operation;
    current = operation;
    setAttribute(element, 'data-id', id);
    setAttribute(element, 'data-status', status);
    setAttribute(link, 'href', operationAddress(id));
    setText(link, id);
    setText(type, title(operation.operation_type));
    chip.update(status, statusLabel(operation));
    setProgress(operation.progress);

    setText(worker, workerOrPlace(operation));
    showAge(created, operation.created_at);
    setText(taken, duration(secondsTaken(operation)));
    showActions(operation);
  }

  /** @param {Api.Progress} progress */
  function setProgress(progress) {
    current = { ...current, progress };
    bar.set(progress?.percentage, current.status);
    setText(step, current.error_message ?? progress?.current_step ?? '');
  }

  return { element, document: () => current, update, setProgress };
}
