// All queues: what waits, what is delayed, who could run it. A pause is for all queues of a type.

import { operationsAddress } from './addresses.js';
import { api } from './api.js';
import { pausedTypes } from './attention.js';
import { h, keyedList, setAttribute, setText, show } from './dom.js';
import { count, duration, moment, title } from './format.js';
import { follow, refreshEvery } from './live-view.js';
import { pauseButton } from './pause-dialog.js';
import { problemLine } from './problem-line.js';
import { pausedChip } from './queue-table.js';
import { skeletonBody } from './skeleton.js';
import { atMostEvery } from './throttle.js';

const REFRESH_MS = 5000;

const COLUMNS = ['Queue', 'Priority', 'Waiting', 'Running', 'Delayed', 'Oldest', 'Workers'];

/** @typedef {import('./attention.js').Paused} Paused */

/** @param {ViewContext} context */
export default function queuesView(context) {
  const { root, signal } = context;
  const problem = problemLine();
  const loading = skeletonBody(COLUMNS.length, 6);
  const head = h('thead', null, h('tr', null, COLUMNS.map((name, at) =>
    h('th', { scope: 'col', class: at > 0 ? 'num' : null }, name))));
  const table = h('table', { class: 'grid queues' },
    h('caption', { class: 'unseen' }, 'Queues by worker type, the first priority first'), head, loading);
  const groups = keyedList(table, (/** @type {Group} */ { type }) => type,
    () => typeGroup(() => refresh(true)), head);
  const empty = h('p', { class: 'empty', hidden: true },
    'No queue is here yet: a worker type has its first one with its first operation or worker.');

  show(root,
    h('div', { class: 'page-head' }, h('h1', null, 'Queues')), problem.element,
    h('section', { class: 'card flush' }, h('div', { class: 'scroll' }, table), empty));

  const refresh = atMostEvery(1000, async () => {
    try {
      const queues = await api.queues(signal);
      problem.clear();
      loading.remove();
      groups.set(groupsOf(queues));
      empty.hidden = queues.length > 0;
    } catch (thrown) {
      if (!signal.aborted) problem.show(thrown);
    }
  });

  follow(context, '/api/v1/events', {
    operation: () => refresh(),
    worker: () => refresh(),
  }, refresh);
  const stopRepeating = refreshEvery(REFRESH_MS, refresh);
  return () => {
    stopRepeating();
    refresh.stop();
  };
}

/** @typedef {{ type: string, queues: Api.QueueOverview[], paused: Paused | undefined }} Group */

/**
 * Queues by worker type, the first priority first.
 * @param {Api.QueueOverview[]} queues
 * @returns {Group[]}
 */
function groupsOf(queues) {
  const paused = pausedTypes(queues);
  const types = [...new Set(queues.map(({ worker_type: type }) => type))];
  return types.map((type) => ({
    type,
    queues: queues.filter((queue) => queue.worker_type === type)
      .sort((a, b) => a.priority - b.priority || (a.queue < b.queue ? -1 : 1)),
    paused: paused.get(type),
  }));
}

/** @param {() => void} onChange */
function typeGroup(onChange) {
  const name = h('span', { class: 'chips' });
  const pause = h('span', { class: 'actions' });
  const head = h('tr', { class: 'type-row' },
    h('th', { scope: 'rowgroup', colspan: COLUMNS.length }, h('div', null, name, pause)));
  const element = h('tbody', null, head);
  const rows = keyedList(element, (/** @type {Api.QueueOverview} */ { queue }) => queue, queueRow,
    head);
  let shown = '';

  /** @param {Group} group */
  function update({ type, queues, paused }) {
    const key = JSON.stringify([type, paused]);
    if (key !== shown) {
      shown = key;
      setAttribute(element, 'data-type', type);
      show(name,
        h('a', { href: operationsAddress({ operation_type: type }) }, title(type)),
        paused && pausedChip(paused),
        paused && h('span', { class: 'muted' },
          paused.until ? `until ${moment(paused.until)}` : 'until somebody resumes it'));
      show(pause, pauseButton(type, paused !== undefined, onChange));
    }
    rows.set(queues);
  }

  return { element, update };
}

function queueRow() {
  const name = h('code', { class: 'tag' });
  const waiting = h('a', { class: 'plain-link' });
  const running = h('a', { class: 'plain-link' });
  const [priority, delayed, oldest, workers] = Array.from({ length: 4 }, () => h('span'));
  const labels = COLUMNS.slice(1);
  const cells = [priority, waiting, running, delayed, oldest, workers].map((cell, at) =>
    h('td', { class: 'num', 'data-label': labels[at] }, cell));

  /** @param {Api.QueueOverview} queue */
  function update(queue) {
    const { worker_type: type, oldest_seconds: seconds } = queue;
    setText(name, queue.queue);
    setText(priority, queue.priority);
    const permits = queue.waiting_for_permit;
    setText(waiting, count(queue.waiting) + (permits ? `, ${count(permits)} for a permit` : ''));
    setAttribute(waiting, 'href', operationsAddress({ operation_type: type, status: 'pending' }));
    setAttribute(waiting, 'data-zero', queue.waiting === 0 ? 'yes' : null);
    setText(running, count(queue.running));
    setAttribute(running, 'href', operationsAddress({ operation_type: type, status: 'running' }));
    setAttribute(running, 'data-zero', queue.running === 0 ? 'yes' : null);
    setText(delayed, count(queue.delayed));
    setAttribute(delayed, 'data-zero', queue.delayed === 0 ? 'yes' : null);
    setText(oldest, seconds === null ? '–' : duration(Math.round(seconds)));
    setText(workers, count(queue.workers));
    const isStuck = queue.waiting > 0 && queue.workers === 0;
    setAttribute(workers, 'data-mark', isStuck ? 'failed' : null);
    setAttribute(workers, 'title', isStuck ? 'No worker can run what waits here' : null);
  }

  return {
    element: h('tr', null, h('th', { scope: 'row' }, name), cells),
    update,
  };
}
