// Which workers are shown, in which order, and in which groups. No elements here.

import { inOrder, isNotPulling, sortedByNeed, WORKER_STATUS_LABELS } from './worker-facts.js';

/**
 * @typedef {object} WorkerFilter
 * @property {string} search in ids, versions, addresses, capabilities and operation ids
 * @property {string} worker_type
 * @property {string} status a `Api.WorkerStatus`, `not-pulling`, or empty
 */

/**
 * @typedef {{ all: number, busy: number, available: number, draining: number, silent: number }}
 *   WorkerCounts
 */
/** @typedef {WorkerCounts & { worker_type: string }} WorkerGroup */

/** @typedef {{ group: WorkerGroup, isOpen: boolean } | { worker: Api.Worker }} ListEntry */

/** @param {Api.Worker} worker */
function searchedText({ worker_id: id, version, endpoint_url: address, capabilities, ...worker }) {
  const running = (worker.current_operations ?? []).map((one) => one.operation_id);
  return [id, version, address, JSON.stringify(capabilities), ...running].join('\n').toLowerCase();
}

/**
 * The workers that match, those that need attention first.
 * @param {Api.Worker[]} workers
 * @param {WorkerFilter} filter
 * @param {number} now milliseconds since 1970
 */
export function matchingWorkers(workers, { search, worker_type: type, status }, now) {
  const words = search.toLowerCase().split(/\s+/).filter(Boolean);
  const matches = (/** @type {Api.Worker} */ worker) => {
    if (type && worker.worker_type !== type) return false;
    if (status === 'not-pulling' ? !isNotPulling(worker, now) : status && worker.status !== status) {
      return false;
    }
    if (words.length === 0) return true;
    const text = searchedText(worker);
    return words.every((word) => text.includes(word));
  };
  return sortedByNeed(workers.filter(matches), now);
}

/**
 * The workers of each type, types by name.
 * @param {Api.Worker[]} workers in their order
 * @returns {{ group: WorkerGroup, workers: Api.Worker[] }[]}
 */
export function groupsOf(workers) {
  /** @type {Map<string, Api.Worker[]>} */
  const byType = new Map();
  for (const worker of workers) {
    const found = byType.get(worker.worker_type);
    if (found) found.push(worker);
    else byType.set(worker.worker_type, [worker]);
  }

  return [...byType].sort(([a], [b]) => inOrder(a, b)).map(([type, list]) => (
    { group: { worker_type: type, ...countsOf(list) }, workers: list }));
}

/**
 * @param {Api.Worker[]} workers
 * @returns {WorkerCounts}
 */
export function countsOf(workers) {
  const having = (/** @type {Api.WorkerStatus} */ status) =>
    workers.filter((worker) => worker.status === status).length;
  return {
    all: workers.length,
    busy: having('BUSY'),
    available: having('AVAILABLE'),
    draining: having('DRAINING'),
    silent: having('TEMPORARILY_UNAVAILABLE'),
  };
}

/**
 * The rows of the table: each group's heading, and its workers unless it is closed.
 * @param {Api.Worker[]} workers
 * @param {Set<string>} closed worker types
 * @returns {ListEntry[]}
 */
export function groupedEntries(workers, closed) {
  return groupsOf(workers).flatMap(({ group, workers: own }) => {
    const isOpen = !closed.has(group.worker_type);
    return [{ group, isOpen }, ...(isOpen ? own.map((worker) => ({ worker })) : [])];
  });
}

/**
 * 12 workers: 3 busy, 8 available, 1 silent. What there is none of is left out.
 * @param {WorkerCounts} counts
 */
export function describeCounts({ all, busy, available, draining, silent }) {
  const parts = [
    [busy, WORKER_STATUS_LABELS.BUSY], [available, WORKER_STATUS_LABELS.AVAILABLE],
    [draining, WORKER_STATUS_LABELS.DRAINING], [silent, WORKER_STATUS_LABELS.TEMPORARILY_UNAVAILABLE],
  ].filter(([number]) => Number(number) > 0).map(([number, label]) => `${number} ${label}`);
  return `${all} ${all === 1 ? 'worker' : 'workers'}: ${parts.join(', ')}`;
}
