// One operation as a row of a table: what it is about first, and of a failed one its error over
// the place of progress and worker.

import { aboutOperation, shortId } from './about.js';
import { operationAddress, workerAddress } from './addresses.js';
import { showAge } from './age.js';
import { copyButton } from './copy.js';
import { h, keyedList, setAttribute, setText } from './dom.js';
import { duration, percent, title } from './format.js';
import { labelLinks } from './label-links.js';
import { actionsIn } from './operation-actions.js';
import { progressBar } from './progress-bar.js';
import { serverNow } from './server-clock.js';
import { statusChip, statusLabel } from './status.js';
import { failureText, placeInQueue } from './waiting.js';

const COLUMNS = ['Operation', 'Id', 'Status', 'Progress', 'Worker', 'Created', 'Took'];

// More would hide what the operation is about. On a phone they have a line of their own.
const MAX_LABELS = 3;
const MAX_LABELS_WHERE_NARROW = 2;
const isNarrow = () => matchMedia('(min-width: 721px) and (max-width: 1240px)').matches;

/** How many columns a row has, with that of the buttons. */
export const COLUMN_COUNT = COLUMNS.length + 1;

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

/**
 * What stands in the place of the bar of an operation that does not run.
 * @param {Api.Operation} operation
 */
function whatHappened(operation) {
  switch (operation.status) {
    case 'pending':
      return placeInQueue(operation);
    case 'failed':
      return failureText(operation) || 'Failed';
    case 'cancelled':
      return operation.attempt > 0 ? `At ${percent(operation.progress?.percentage)}` : '';
    default:
      return operation.progress?.current_step ?? '';
  }
}

/**
 * Rows of a table, one per operation.
 * @param {HTMLElement} body
 * @param {import('./selection.js').Selection} [selection] where rows can be picked
 */
export function operationRows(body, selection) {
  return keyedList(body, (/** @type {Api.Operation} */ one) => one.operation_id,
    () => operationRow(selection));
}

/** @param {import('./selection.js').Selection} [selection] */
function operationRow(selection) {
  const pick = selection?.box();
  const about = h('a', { class: 'op-about' });
  const type = h('span', { class: 'op-type' });
  const labels = labelLinks(isNarrow() ? MAX_LABELS_WHERE_NARROW : MAX_LABELS);
  const id = h('code', { class: 'op-id' });
  const copyId = copyButton('the id', () => current.operation_id);
  const chip = statusChip();
  const bar = progressBar('Progress');
  const said = h('span', { class: 'said' });
  const workerLink = h('a', { class: 'plain-link' });
  const worker = h('td', { class: 'worker', 'data-label': 'Worker' }, workerLink);
  const created = h('span');
  const taken = h('td', { class: 'taken', 'data-label': 'Took' });
  const actions = h('td', { class: 'actions' });
  const showActions = actionsIn(actions, 'small');
  const element = h('tr', null,
    h('th', { scope: 'row', class: 'cell-about' },
      h('div', null, pick?.element, about, type), labels.element),
    h('td', { class: 'cell-id' }, h('div', null, id, copyId)),
    h('td', { class: 'cell-status' }, chip.element),
    h('td', { class: 'cell-progress' }, bar.element, said), worker,
    h('td', { class: 'created', 'data-label': 'Created' }, created),
    taken, actions);
  /** @type {Api.Operation} */
  let current;

  /** @param {Api.Operation} operation */
  function update(operation) {
    // No event tells of a retry; the list does.
    current = { ...operation, retried_as: operation.retried_as ?? current?.retried_as };
    const { operation_id: operationId, status, worker_id: workerId } = current;
    setAttribute(element, 'data-id', operationId);
    setAttribute(element, 'data-status', status);

    const told = aboutOperation(current);
    pick?.update(operationId, `${told}, ${shortId(operationId)}`);
    setText(about, told);
    setAttribute(about, 'title', told);
    setAttribute(about, 'href', operationAddress(operationId));
    setText(type, title(current.operation_type));
    setAttribute(type, 'title', title(current.operation_type));
    // It is told already.
    type.hidden = !current.summary;
    labels.update(current);
    setText(id, shortId(operationId));
    setAttribute(id, 'title', operationId);
    chip.update(status, statusLabel(current));
    setProgress(current.progress);

    setText(workerLink, workerId ?? '');
    setAttribute(workerLink, 'href', workerId && workerAddress(workerId));
    setAttribute(workerLink, 'title', workerId);
    showAge(created, current.created_at);
    setText(taken, duration(secondsTaken(current)));
    showActions(current);
  }

  /** @param {Api.Progress} progress */
  function setProgress(progress) {
    current = { ...current, progress };
    const isRunning = current.status === 'running';
    const isFailed = current.status === 'failed';
    bar.element.hidden = !isRunning;
    if (isRunning) bar.set(progress?.percentage, 'running');

    const text = isRunning ? progress?.current_step ?? '' : whatHappened(current);
    setText(said, text);
    setAttribute(said, 'title', text);
    // The error stands there, too.
    workerLink.hidden = isFailed;
  }

  return { element, document: () => current, update, setProgress };
}
