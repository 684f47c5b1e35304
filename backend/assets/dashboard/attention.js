// What somebody should look at, in sentences with links. No elements here.

import { operationsAddress } from './addresses.js';
import { count, duration, moment, title } from './format.js';

/** @typedef {{ status: string, text: string, detail: string, address: string }} Pointer */

/**
 * @param {number} number
 * @param {string} one
 * @param {string} [many]
 */
const counted = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

/**
 * Queues whose operations nobody runs, as far as the figures tell.
 * @param {Api.Queue} queue
 * @param {Api.TypeStats[]} types
 */
function whyNobody({ worker_type: type, queue, pending, nobody }, types) {
  if (pending === 0 || queue === 'direct') return '';
  if (nobody) return nobody;
  const known = types.find((one) => one.worker_type === type);
  return known && known.workers === 0 ? `no worker of the type ${type} is here` : '';
}

/** @typedef {{ until: string | null }} Paused */

/**
 * The worker types whose queues are paused.
 * @param {Api.QueueOverview[]} queues
 * @returns {Map<string, Paused>}
 */
export function pausedTypes(queues) {
  return new Map(queues.filter(({ paused }) => paused)
    .map(({ worker_type: type, paused_until: until }) => [type, { until }]));
}

/**
 * Why nothing of a worker type starts, of which an operation waits. Empty when it is not paused.
 * @param {string} workerType
 * @param {Api.QueueOverview[]} queues
 */
export function whyPaused(workerType, queues) {
  const paused = pausedTypes(queues).get(workerType);
  if (paused === undefined) return '';
  const end = paused.until ? `until ${moment(paused.until)}` : 'until somebody resumes it';
  return `${title(workerType)} is paused ${end}; nothing of it starts.`;
}

/**
 * The queues whose operations nobody runs: each reason once for a worker type, which has a queue for
 * each priority.
 * @param {Api.Stats} stats
 * @returns {{ type: string, why: string, pending: number, oldest: number | null }[]}
 */
function nobodyRuns({ queues, by_type: types }) {
  /** @type {Map<string, { type: string, why: string, pending: number, oldest: number | null }>} */
  const found = new Map();
  for (const queue of queues) {
    const why = whyNobody(queue, types);
    if (!why) continue;

    const { worker_type: type, pending, oldest_pending_seconds: oldest } = queue;
    const key = JSON.stringify([type, why]);
    const sum = found.get(key) ?? { type, why, pending: 0, oldest: null };
    found.set(key, {
      ...sum,
      pending: sum.pending + pending,
      oldest: oldest === null ? sum.oldest : Math.max(oldest, sum.oldest ?? 0),
    });
  }
  return [...found.values()];
}

/**
 * What needs attention, most urgent first.
 * @param {Api.Stats} stats
 * @param {Map<string, Paused>} [paused] by worker type
 * @returns {Pointer[]}
 */
export function pointersOf(stats, paused = new Map()) {
  const { queues, workers } = stats;
  /** @type {Pointer[]} */
  const pointers = [];
  for (const [type, { until }] of paused) {
    const waiting = queues.filter((queue) => queue.worker_type === type && queue.queue !== 'direct')
      .reduce((sum, queue) => sum + queue.pending, 0);
    pointers.push({
      status: 'pending',
      text: `${title(type)} is paused${until ? ` until ${moment(until)}` : ''}: ${count(waiting)} pending`,
      detail: 'What runs goes on.',
      address: operationsAddress({ operation_type: type, status: 'pending' }),
    });
  }
  for (const { type, why, pending, oldest } of nobodyRuns(stats)) {
    pointers.push({
      status: 'pending',
      text: `${title(type)}: ${count(pending)} pending, and nobody can run `
        + `${pending === 1 ? 'it' : 'them'}: ${why}`,
      detail: oldest === null ? '' : `The oldest has waited for ${duration(Math.round(oldest))}.`,
      address: operationsAddress({ operation_type: type, status: 'pending' }),
    });
  }

  const silent = workers.TEMPORARILY_UNAVAILABLE;
  if (silent > 0) {
    pointers.push({
      status: 'failed',
      text: `${counted(silent, 'worker is', 'workers are')} silent: no heartbeat comes`,
      detail: 'Other workers take over what they ran.',
      address: '#/workers?status=TEMPORARILY_UNAVAILABLE',
    });
  }
  return pointers;
}

/**
 * The list of exactly those that failed so.
 * @param {Api.FailureCount} failure
 * @param {number} since when the time begins that is meant, in milliseconds since 1970
 */
export function failureAddress({ operation_type: type, error_code: code }, since) {
  return operationsAddress({
    status: 'failed', operation_type: type, error_code: code,
    ended_after: new Date(since).toISOString(),
  });
}
