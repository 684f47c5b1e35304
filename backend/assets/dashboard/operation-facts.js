// Progress and facts of one operation, drawn with every change.

import { workerAddress } from './addresses.js';
import { showAge } from './age.js';
import { h, setAttribute, setText, show } from './dom.js';
import { duration, fieldTitle, moment, number, secondsBetween } from './format.js';
import { secondsTaken } from './operation-row.js';
import { priorityChoice } from './priority-choice.js';
import { progressBar } from './progress-bar.js';
import { placeInQueue } from './waiting.js';

/** @typedef {[string, string | number][]} Pairs */

// Parts of a progress report that have their own place on the page. All others are the engine's
// counters.
const SHOWN_ELSEWHERE = ['percentage', 'current_step', 'estimated_remaining_seconds'];

/**
 * How far it is. Of a completed operation, its result says more.
 * @param {string} id
 */
export function operationProgress(id) {
  const bar = progressBar(`Progress of ${id}`);
  const step = h('span', { class: 'step' });
  const left = h('span', { class: 'muted' });
  const priority = priorityChoice(id);
  const counters = h('dl', { class: 'pairs counters' });
  const element = h('section', { class: 'card', id: 'progress', hidden: true },
    h('div', { class: 'big-progress' }, bar.element,
      h('div', { class: 'under' }, step, left, priority.element)),
    counters);

  return {
    element,
    /** @param {Api.Operation} operation */
    update(operation) {
      const { status, progress } = operation;
      const isOver = status === 'failed' || status === 'cancelled';
      const isTelling = Boolean(progress?.percentage || progress?.current_step);
      element.hidden = status === 'completed' || (isOver && !isTelling);
      bar.set(progress?.percentage, status);
      const place = status === 'pending' ? placeInQueue(operation) : '';
      setText(step, progress?.current_step ?? place);
      priority.update(operation);
      setText(left, status === 'running' ? timeLeft(progress) : '');

      const pairs = counterPairs(progress);
      showPairs(counters, pairs);
      counters.hidden = pairs.length === 0;
    },
  };
}

/** When, where and for how long. */
export function operationFacts() {
  const worker = h('a');
  const created = h('span');
  const createdAgo = h('span', { class: 'muted' });
  const facts = h('dl', { class: 'pairs' });
  const element = h('div', { id: 'facts' },
    h('dl', { class: 'pairs' },
      h('dt', null, 'Worker'), h('dd', null, worker),
      h('dt', null, 'Created'), h('dd', null, created, ' ', createdAgo)),
    facts);

  return {
    element,
    /** @param {Api.Operation} operation */
    update(operation) {
      const { worker_id: workerId, created_at: createdAt } = operation;
      setText(worker, workerId ?? '–');
      setAttribute(worker, 'href', workerId && workerAddress(workerId));
      setText(created, moment(createdAt));
      showAge(createdAgo, createdAt);
      showPairs(facts, factPairs(operation));
    },
  };
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
      [fieldTitle(name), typeof value === 'number' ? number(value) : String(value ?? '–')]);
}

/**
 * @param {Api.Operation} operation
 * @returns {Pairs}
 */
function factPairs(operation) {
  const { cancel_requested_at: cancelRequestedAt, requested_by: requester } = operation;
  const { attempts, created_at: createdAt, completed_at: completedAt } = operation;
  const firstStart = attempts[0]?.started_at ?? operation.started_at;

  /** @type {Pairs} */
  const pairs = [];
  if (firstStart) {
    pairs.push(['Waited', duration(secondsBetween(createdAt, firstStart))]);
    pairs.push(['Started', moment(firstStart)]);
  }
  if (completedAt) pairs.push(['Ended', moment(completedAt)]);
  if (operation.start_at) pairs.push(['Not before', moment(operation.start_at)]);
  if (operation.expires_at) pairs.push(['Expires', moment(operation.expires_at)]);
  pairs.push([attempts.length > 1 ? 'Last attempt took' : 'Took', duration(secondsTaken(operation))]);
  if (attempts.length > 1 && firstStart && completedAt) {
    pairs.push(['All attempts took', duration(secondsBetween(firstStart, completedAt))]);
  }
  pairs.push(['Attempts', operation.attempt || '–'], ['Queue', operation.queue]);
  if (operation.priority) pairs.push(['Priority', operation.priority]);
  if (cancelRequestedAt) pairs.push(['Cancel requested', moment(cancelRequestedAt)]);
  if (requester) pairs.push(['Requested by', requester]);
  return pairs;
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
