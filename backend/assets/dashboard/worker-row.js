// A worker as a row of a table, and the heading of the workers of one type.

import { shortId } from './about.js';
import { operationAddress, startAddress, workerAddress } from './addresses.js';
import { showAge } from './age.js';
import { h, setAttribute, setText } from './dom.js';
import { count, percent, title } from './format.js';
import { icon } from './icons.js';
import { serverNow } from './server-clock.js';
import { statusChip } from './status.js';
import { WORKER_STATUS_LABELS, capabilityLabels, isNotPulling } from './worker-facts.js';
import { describeCounts } from './worker-list.js';

export const WORKER_COLUMNS =
  ['Worker', 'Status', 'Runs', 'Has', 'Finished', 'Last heartbeat', 'Version'];

/** The chip of a worker's status. */
export function workerChip() {
  const chip = statusChip();
  return {
    element: chip.element,
    /** @param {Api.Worker} worker */
    update(worker) {
      const isIdle = isNotPulling(worker, serverNow());
      if (isIdle) chip.update('not-pulling', 'not pulling');
      else chip.update(worker.status, WORKER_STATUS_LABELS[worker.status] ?? worker.status);
      chip.element.title = isIdle ? 'It sends heartbeats, but has not pulled for a while' : '';
    },
  };
}

function workerRow() {
  const link = h('a', { class: 'worker-id' });
  const chip = workerChip();
  const operation = h('a', { class: 'op-id' });
  const progress = h('span', { class: 'muted' });
  const has = h('td', { class: 'has' });
  const finished = h('td', { class: 'num' });
  const heartbeat = h('span');
  const version = h('td', { class: 'version' });
  const element = h('tr', { class: 'worker-row' },
    h('th', { scope: 'row' }, link),
    h('td', { class: 'cell-status' }, chip.element),
    h('td', { class: 'runs' }, operation, ' ', progress),
    has, finished, h('td', { class: 'heartbeat' }, heartbeat), version);
  /** @type {Api.Worker} */
  let current;

  /** @param {Api.Worker} worker */
  function update(worker) {
    current = worker;
    const { worker_id: id } = worker;
    setAttribute(element, 'data-id', id);
    setAttribute(element, 'data-status', worker.status);
    setText(link, id);
    setAttribute(link, 'href', workerAddress(id));
    setAttribute(link, 'title', id);
    chip.update(worker);
    const labels = capabilityLabels(worker).join(', ');
    setText(has, labels);
    setAttribute(has, 'title', labels);
    setText(finished, count(worker.finished));
    showAge(heartbeat, worker.last_health_check);
    setText(version, worker.version);
    showRunning();
  }

  function showRunning() {
    const [first, ...others] = current.current_operations ?? [];
    operation.hidden = first === undefined;
    if (first === undefined) {
      setText(progress, '');
      return;
    }
    setAttribute(operation, 'href', operationAddress(first.operation_id));
    setAttribute(operation, 'title', first.operation_id);
    setText(operation, shortId(first.operation_id));
    setText(progress, [
      percent(first.progress?.percentage),
      first.attempt > 1 && `attempt ${first.attempt}`,
      others.length > 0 && `and ${count(others.length)} more`,
    ].filter(Boolean).join(', '));
  }

  /** @param {Api.ProgressEvent} event */
  function setProgress({ operation_id: id, attempt, progress: reported }) {
    const operations = current.current_operations ?? [];
    const found = operations.find((one) => one.operation_id === id && one.attempt === attempt);
    if (!found) return;
    found.progress = reported;
    showRunning();
  }

  return { element, update, setProgress };
}

/** @param {(workerType: string) => void} onToggle */
function groupRow(onToggle) {
  const name = h('b');
  const summary = h('span', { class: 'muted' });
  const button = h('button', { type: 'button', class: 'group-toggle' }, icon('next'), name, summary);
  const start = h('a', { class: 'button small' }, 'Start');
  const element = h('tr', { class: 'group-row' },
    h('th', { scope: 'rowgroup', colspan: WORKER_COLUMNS.length }, h('div', null, button, start)));
  let type = '';
  button.addEventListener('click', () => onToggle(type));

  /** @param {{ group: import('./worker-list.js').WorkerGroup, isOpen: boolean }} entry */
  function update({ group, isOpen }) {
    type = group.worker_type;
    setAttribute(element, 'data-type', type);
    setText(name, title(type));
    setAttribute(name, 'title', title(type));
    setText(summary, describeCounts(group));
    setAttribute(button, 'aria-expanded', String(isOpen));
    setAttribute(start, 'href', startAddress(type));
    setAttribute(start, 'aria-label', `Start ${title(type)}`);
  }

  return { element, update };
}

/**
 * A row of either kind. An entry keeps its kind as long as it keeps its key.
 * @param {import('./worker-list.js').ListEntry} first
 * @param {(workerType: string) => void} onToggle
 */
export function entryRow(first, onToggle) {
  const group = 'group' in first ? groupRow(onToggle) : null;
  const worker = 'worker' in first ? workerRow() : null;
  return {
    element: /** @type {HTMLElement} */ (group?.element ?? worker?.element),
    /** @param {import('./worker-list.js').ListEntry} entry */
    update(entry) {
      if ('worker' in entry) worker?.update(entry.worker);
      else group?.update(entry);
    },
    /** @param {Api.ProgressEvent} event */
    setProgress: (event) => worker?.setProgress(event),
  };
}
