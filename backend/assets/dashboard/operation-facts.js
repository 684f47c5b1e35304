// Progress and facts of one operation, drawn with every change.

import { h, setText, show } from './dom.js';
import { duration, moment, number, title } from './format.js';
import { secondsTaken } from './operation-row.js';
import { progressBar } from './progress-bar.js';

/** @typedef {[string, string | number][]} Pairs */

// Parts of a progress report that have their own place on the page. All others are the engine's
// counters.
const SHOWN_ELSEWHERE = ['percentage', 'current_step', 'estimated_remaining_seconds'];

/** @param {string} id */
export function operationFacts(id) {
  const bar = progressBar(`Progress of ${id}`);
  const step = h('span', { class: 'step' });
  const left = h('span', { class: 'muted' });
  const counters = h('dl', { class: 'pairs counters' });
  const facts = h('dl', { class: 'pairs facts' });

  return {
    element: h('section', { class: 'card' },
      h('div', { class: 'big-progress' }, bar.element, h('div', { class: 'under' }, step, left)),
      counters, facts),
    /** @param {Api.Operation} operation */
    update(operation) {
      const { status, progress } = operation;
      bar.set(progress?.percentage, status);
      const place = status === 'pending' ? placeInQueue(operation) : '';
      setText(step, progress?.current_step ?? place);
      setText(left, status === 'running' ? timeLeft(progress) : '');

      const pairs = counterPairs(progress);
      showPairs(counters, pairs);
      counters.hidden = pairs.length === 0;
      showPairs(facts, factPairs(operation));
    },
  };
}

/** @param {Api.Operation} operation */
function placeInQueue({ queue, queue_position: position }) {
  return position ? `Place ${position} in the queue ${queue}` : 'Waiting for a worker';
}

/** @param {Api.Progress} progress */
function timeLeft(progress) {
  const seconds = progress?.estimated_remaining_seconds;
  return seconds ? `about ${duration(seconds)} left` : '';
}

/**
 * @param {Api.Progress} progress
 * @returns {Pairs}
 */
function counterPairs(progress) {
  return Object.entries(progress ?? {})
    .filter(([name]) => !SHOWN_ELSEWHERE.includes(name))
    .filter(([, value]) => value === null || typeof value !== 'object')
    .map(([name, value]) =>
      [title(name), typeof value === 'number' ? number(value) : String(value ?? '–')]);
}

/**
 * @param {Api.Operation} operation
 * @returns {Pairs}
 */
function factPairs(operation) {
  const { cancel_requested_at: cancelRequestedAt, requested_by: requester } = operation;
  /** @type {Pairs} */
  const cancel = cancelRequestedAt ? [['Cancel requested', moment(cancelRequestedAt)]] : [];
  /** @type {Pairs} */
  const origin = requester ? [['Requested by', requester]] : [];
  return [
    ['Worker', operation.worker_id ?? '–'],
    ['Attempt', operation.attempt || '–'],
    ['Queue', operation.queue],
    ['Created', moment(operation.created_at)],
    ['Started', moment(operation.started_at)],
    ['Ended', moment(operation.completed_at)],
    ['Took', duration(secondsTaken(operation))],
    ...cancel, ...origin,
  ];
}

/**
 * Keeps the elements while the names stay the same, so that nothing jumps.
 * @param {HTMLElement} list
 * @param {Pairs} pairs
 */
function showPairs(list, pairs) {
  const names = pairs.map(([name]) => name).join('\n');
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    show(list, pairs.map(([name]) => h('div', null, h('dt', null, name), h('dd'))));
  }
  const values = list.querySelectorAll('dd');
  pairs.forEach(([, value], at) => setText(values[at], value));
}
