// What happened to an operation: its events and attempts as one list.

import { workerAddress } from './addresses.js';
import { api, asApiError } from './api.js';
import { timelineOf } from './attempt-timeline.js';
import { h, show } from './dom.js';
import { duration, moment, secondsBetween, timeOfDay, title } from './format.js';
import { icon } from './icons.js';
import { statusChip } from './status.js';
import { atMostEvery } from './throttle.js';

/**
 * The colour of an attempt's outcome.
 * @type {Record<string, string>}
 */
const OUTCOME_STATUS = {
  completed: 'completed', failed: 'failed', lost: 'failed', cancelled: 'cancelled',
  released: 'pending',
};

/**
 * Colour and label of an event.
 * @type {Record<string, [string, string]>}
 */
const EVENT_LABELS = {
  start_requested: ['pending', 'Start requested'],
  cancel_requested: ['cancelled', 'Cancel requested'],
  started: ['running', 'Started'],
  released: ['pending', 'Released'],
  moved: ['pending', 'Moved'],
  completed: ['completed', 'Completed'],
  failed: ['failed', 'Failed'],
  cancelled: ['cancelled', 'Cancelled'],
};

/**
 * @param {Api.Attempt} attempt
 * @param {number} first the time of the first event
 */
function attemptItem(attempt, first) {
  const { attempt: number, outcome, worker_id: worker, started_at: startedAt, error } = attempt;
  const chip = statusChip();
  if (outcome === null) chip.update('running');
  else chip.update(OUTCOME_STATUS[outcome] ?? 'running', outcome);

  const seconds = secondsBetween(startedAt, attempt.ended_at);
  const took = outcome === null ? '' : ` for ${duration(seconds)}`;
  const what = h('div', null,
    h('b', null, `Attempt ${number}`), ' on ',
    h('a', { href: workerAddress(worker) }, h('code', null, worker)), ' ', chip.element,
    h('span', { class: 'muted' }, took),
    error && h('p', { class: 'muted' }, error));
  return timelineEntry(outcome === null ? 'running' : OUTCOME_STATUS[outcome] ?? 'running', what,
    timeSince(startedAt, first, moment(startedAt)));
}

/**
 * @param {string | null} time
 * @param {number} first the time of the first event
 * @param {string} hint
 */
function timeSince(time, first, hint) {
  const seconds = (Date.parse(time ?? '') - first) / 1000;
  return h('time', { datetime: time, title: hint },
    seconds > 0 ? `+${duration(seconds)}` : timeOfDay(time));
}

/**
 * Events and attempts in one.
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {(error: unknown) => void} onFailure
 */
export function operationTimeline(id, signal, onFailure) {
  const element = h('ol', { class: 'timeline' });
  /** @type {Api.History} */
  let events = { history: [], truncated: false };
  /** @type {Api.Attempt[]} */
  let attempts = [];
  let problem = '';

  function draw() {
    const { history, truncated } = events;
    const items = timelineOf(history, attempts);
    const begin = history[0]?.time ?? attempts[0]?.started_at ?? '';
    const first = Date.parse(begin);
    show(element,
      items.map((item) => (item.kind === 'attempt'
        ? attemptItem(item.attempt, first)
        : eventItem(item.entry, first, attempts.at(-1)?.error))),
      problem && timelineEntry('failed', h('div', { class: 'muted' }, problem)),
      truncated && timelineEntry('pending', h('div', null, 'There are more events.')));
  }

  const refresh = atMostEvery(1000, async () => {
    try {
      events = await api.history(id, signal);
      problem = '';
    } catch (error) {
      if (signal.aborted) return;
      // Events that are shown stay: they do not change any more.
      if (events.history.length === 0) problem = asApiError(error).message;
      onFailure(error);
    }
    draw();
  });

  return {
    element,
    /** @param {Api.Operation} operation */
    update(operation) {
      attempts = operation.attempts;
      if (events.history.length > 0 || operation.archived) draw();
      refresh();
    },
    refresh: () => refresh(),
    stop: () => refresh.stop(),
  };
}

/**
 * @param {Api.HistoryEntry} entry
 * @param {number} first the time of the first event
 * @param {string | null | undefined} known the error of the last attempt, which stands there
 */
function eventItem(entry, first, known) {
  const { event, sequence, time, attempt, data } = entry;
  const { worker_id: worker, requested_by: requester } = entry;
  const [status, label] = EVENT_LABELS[event] ?? ['pending', title(event)];
  const reason = data?.error?.message ?? data?.reason;
  const what = h('div', null,
    h('b', null, label),
    attempt !== null && attempt > 0 && ` by attempt ${attempt}`,
    event === 'moved' && data?.queue && [' to the queue ', h('code', null, data.queue)],
    worker && attempt === null && [' on ', h('code', null, worker)],
    requester && [' by ', h('code', null, requester)],
    reason && reason !== known && h('p', { class: 'muted' }, String(reason)));
  return timelineEntry(status, what,
    timeSince(time, first, `${moment(time)}; message ${sequence} of the stream`));
}

/**
 * @param {string} status
 * @param {...Child} children
 */
function timelineEntry(status, ...children) {
  return h('li', { 'data-status': status }, h('span', { class: 'node' }, icon(status)), children);
}
