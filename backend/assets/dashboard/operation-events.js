// The attempts of an operation, and the timeline of its events.

import { api, asApiError } from './api.js';
import { h, show } from './dom.js';
import { duration, moment, timeOfDay, title } from './format.js';
import { icon } from './icons.js';
import { isTerminal, statusChip } from './status.js';
import { atMostEvery } from './throttle.js';

/** The colour of an attempt's outcome. */
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
  completed: ['completed', 'Completed'],
  failed: ['failed', 'Failed'],
  cancelled: ['cancelled', 'Cancelled'],
};

export function attemptList() {
  const element = h('ol', { class: 'attempts' });
  return {
    element,
    /** @param {Api.Operation} operation */
    update({ attempts, status }) {
      const none = isTerminal(status) ? 'There was no attempt' : 'No attempt yet';
      show(element,
        attempts.length === 0 && h('li', { class: 'muted' }, none),
        attempts.map(attemptEntry));
    },
  };
}

/** @param {Api.Attempt} attempt */
function attemptEntry({ attempt, outcome, worker_id: worker, started_at, ended_at, error }) {
  const chip = statusChip();
  if (outcome === null) chip.update('running');
  else chip.update(OUTCOME_STATUS[outcome] ?? 'running', outcome);

  const time = ended_at
    ? `for ${duration((Date.parse(ended_at) - Date.parse(started_at)) / 1000)}`
    : `since ${timeOfDay(started_at)}`;
  return h('li', null,
    h('b', null, `#${attempt}`), chip.element,
    h('span', null, 'on ', h('code', null, worker)),
    h('span', { class: 'muted' }, time),
    error && h('p', { class: 'attempt-error' }, error));
}

/**
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {(error: unknown) => void} onFailure
 */
export function operationTimeline(id, signal, onFailure) {
  const element = h('ol', { class: 'timeline' });
  let isEmpty = true;

  const refresh = atMostEvery(1000, async () => {
    try {
      const { history, truncated } = await api.history(id, signal);
      const first = Date.parse(history[0]?.time ?? '');
      show(element,
        history.map((entry) => historyEntry(entry, first)),
        truncated && timelineEntry('pending', h('div', null, 'There are more events.')));
      isEmpty = history.length === 0;
    } catch (error) {
      if (signal.aborted) return;
      // Events that are shown stay: they do not change any more.
      if (isEmpty) {
        const message = h('div', { class: 'muted' }, asApiError(error).message);
        show(element, timelineEntry('failed', message));
      }
      onFailure(error);
    }
  });

  return { element, refresh: () => refresh(), stop: () => refresh.stop() };
}

/**
 * @param {Api.HistoryEntry} entry
 * @param {number} first the time of the first event
 */
function historyEntry(entry, first) {
  const { event, sequence, time, attempt, data } = entry;
  const { worker_id: worker, requested_by: requester } = entry;
  const [status, label] = EVENT_LABELS[event] ?? ['pending', title(event)];
  const reason = data?.error?.message ?? data?.reason;
  const what = h('div', null,
    h('b', null, label),
    attempt !== null && attempt > 0 && ` · attempt ${attempt}`,
    worker && [' · ', h('code', null, worker)],
    requester && [' · by ', h('code', null, requester)],
    reason && h('p', { class: 'muted' }, String(reason)));

  const seconds = (Date.parse(time ?? '') - first) / 1000;
  const when = h('time',
    { datetime: time, title: `${moment(time)}; message ${sequence} of the stream` },
    seconds > 0 ? `+${duration(seconds)}` : timeOfDay(time));
  return timelineEntry(status, what, when);
}

/**
 * @param {string} status
 * @param {...Child} children
 */
function timelineEntry(status, ...children) {
  return h('li', { 'data-status': status }, h('span', { class: 'node' }, icon(status)), children);
}
