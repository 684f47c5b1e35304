// The overview: what waits, what runs, throughput, failures, workers.

import { operationsAddress } from './addresses.js';
import { api, asApiError } from './api.js';
import { minuteChart } from './bar-chart.js';
import { h, keyedList, setAttribute, setText, show } from './dom.js';
import { count, duration, title } from './format.js';
import { icon } from './icons.js';
import { operationRows, tableHead } from './operation-row.js';
import { serverNow } from './server-clock.js';
import { STATUSES } from './status.js';
import { liveStream } from './stream.js';
import { atMostEvery } from './throttle.js';
import { endedIn, endedInLastMinute, failuresIn } from './throughput.js';

const NEWEST = 8;
const FAILURE_MINUTES = 15;
// Ages and bars move on although no event comes.
const REFRESH_MS = 10000;

/** @param {ViewContext} context */
export default function overview({ root, signal, listen }) {
  const tiles = makeTiles();
  const chart = minuteChart('Operations ended in each of the last 60 minutes');
  const queues = queueTable();
  const types = typeTable();
  const newest = newestTable();
  const problem = h('p', { class: 'problem', hidden: true });

  show(root,
    h('h1', { class: 'quiet' }, 'Overview'), problem, tiles.element,
    h('div', { class: 'columns' },
      card('Throughput', muted('last 60 minutes'), chart.element),
      card('Queues', muted('what waits, and for how long'), queues.element)),
    card('By type', null, types.element),
    card('Newest operations', h('a', { href: '#/operations' }, 'All operations'), newest.element));

  const refresh = atMostEvery(1000, async () => {
    try {
      const [stats, page] = await Promise.all([
        api.stats(signal), api.operations({ limit: NEWEST }, signal),
      ]);
      problem.hidden = true;
      tiles.set(stats);
      chart.set(stats.minutes);
      queues.set(stats.queues);
      types.set(stats.by_type);
      newest.set(page.operations);
    } catch (thrown) {
      if (signal.aborted) return;
      const error = asApiError(thrown);
      liveStream.checkAfter(error);
      problem.hidden = false;
      setText(problem, error.message);
    }
  });

  listen('/api/v1/events', {
    open: () => refresh(true),
    reset: () => refresh(true),
    operation: () => refresh(),
    worker: () => refresh(),
    progress: (event) => newest.get(event.operation_id)?.setProgress(event.progress),
  });
  refresh(true);
  const timer = setInterval(() => refresh(), REFRESH_MS);
  return () => {
    clearInterval(timer);
    refresh.stop();
  };
}

/**
 * @param {string} heading
 * @param {Child} aside
 * @param {...Child} children
 */
function card(heading, aside, ...children) {
  return h('section', { class: 'card' },
    h('header', null, h('h2', null, heading), aside), children);
}

/** @param {string} text */
const muted = (text) => h('span', { class: 'muted' }, text);

function makeTiles() {
  const waiting = tile('Waiting', 'pending', '#/operations?status=pending');
  const running = tile('Running', 'running', '#/operations?status=running');
  const rate = tile('Ended in a minute', 'completed', '#/operations');
  const failures = tile('Failed in 15 minutes', 'failed', '#/operations?status=failed');
  const workers = tile('Workers', 'chip', '#/workers');
  const all = [waiting, running, rate, failures, workers];

  return {
    element: h('div', { class: 'tiles' }, all.map((one) => one.element)),
    /** @param {Api.Stats} stats */
    set({ operations, queues, workers: byStatus, minutes }) {
      waiting.set(count(operations.pending), oldestWaiting(queues));
      running.set(count(operations.running), `${count(operations.total)} operations in all`);
      rate.set(count(endedInLastMinute(minutes, serverNow())),
        `${count(endedIn(minutes))} in the last hour`);

      const { failed, finished } = failuresIn(minutes.slice(-FAILURE_MINUTES));
      failures.set(count(failed), failureShare(failed, finished));
      failures.mark(failed > 0);

      workers.set(count(byStatus.AVAILABLE + byStatus.BUSY), workerSummary(byStatus));
      workers.mark(byStatus.TEMPORARILY_UNAVAILABLE > 0);
    },
  };
}

/**
 * @param {string} label
 * @param {string} iconName
 * @param {string} target
 */
function tile(label, iconName, target) {
  const value = h('strong', null, '–');
  const note = h('small', null, ' ');
  const element = h('a', { class: 'tile', href: target },
    h('span', { class: 'tile-label' }, icon(iconName), label), value, note);
  return {
    element,
    /**
     * @param {string} shown
     * @param {string} detail
     */
    set(shown, detail) {
      setText(value, shown);
      setText(note, detail);
    },
    /** @param {boolean} isFailed */
    mark(isFailed) {
      setAttribute(element, 'data-mark', isFailed ? 'failed' : null);
    },
  };
}

/** @param {Api.Queue[]} queues */
function oldestWaiting(queues) {
  const oldest = Math.max(0, ...queues.map((queue) => queue.oldest_pending_seconds ?? 0));
  return oldest > 0 ? `oldest for ${duration(Math.round(oldest))}` : 'nothing waits';
}

/**
 * @param {number} failed
 * @param {number} finished
 */
function failureShare(failed, finished) {
  if (finished === 0) return 'nothing finished';
  const share = ((failed / finished) * 100).toFixed(failed === 0 ? 0 : 1);
  return `${share} % of ${count(finished)} finished`;
}

/** @param {Api.Stats['workers']} byStatus */
function workerSummary({ BUSY: busy, AVAILABLE: free, TEMPORARILY_UNAVAILABLE: silent }) {
  const silentPart = silent > 0 ? `, ${count(silent)} silent` : '';
  return `${count(busy)} busy, ${count(free)} free${silentPart}`;
}

/**
 * @param {string} workerType
 * @param {string} status
 */
function listAddress(workerType, status) {
  return operationsAddress({ operation_type: workerType, status });
}

/**
 * A heading of a column; all but the first are above figures.
 * @param {string} name
 * @param {number} at
 */
const columnHead = (name, at) => h('th', { scope: 'col', class: at > 0 ? 'num' : '' }, name);

function queueTable() {
  const body = h('tbody');
  const rows = keyedList(body, queueKey, queueRow);
  const empty = h('p', { class: 'empty', hidden: true },
    'Nothing was ever queued. Start a worker, then an operation.');
  const head = h('tr', null, ['Queue', 'Waiting', 'Running', 'Oldest'].map(columnHead));
  return {
    element: [
      h('div', { class: 'scroll' }, h('table', { class: 'grid' }, h('thead', null, head), body)),
      empty,
    ],
    /** @param {Api.Queue[]} queues */
    set(queues) {
      rows.set(queues);
      empty.hidden = queues.length > 0;
    },
  };
}

/** @param {Api.Queue} queue */
const queueKey = (queue) => `${queue.worker_type} ${queue.queue}`;

function queueRow() {
  const name = h('th', { scope: 'row' });
  const waiting = h('td', { class: 'num' });
  const running = h('td', { class: 'num' });
  const oldest = h('td', { class: 'num' });
  let shownKey = '';

  /** @param {Api.Queue} queue */
  function update(queue) {
    const { worker_type: workerType, oldest_pending_seconds: seconds } = queue;
    if (shownKey !== queueKey(queue)) {
      shownKey = queueKey(queue);
      show(name,
        h('a', { href: listAddress(workerType, 'pending') }, title(workerType)),
        ' ', h('code', { class: 'tag' }, queue.queue));
    }
    setText(waiting, count(queue.pending));
    setText(running, count(queue.running));
    setText(oldest, seconds === null ? '–' : duration(Math.round(seconds)));
  }

  return { element: h('tr', null, name, waiting, running, oldest), update };
}

function typeTable() {
  const body = h('tbody');
  const rows = keyedList(body, (/** @type {Api.TypeStats} */ type) => type.worker_type, typeRow);
  const head = h('tr', null,
    ['Type', ...STATUSES.map((status) => title(status)), 'Workers'].map((name, at) =>
      h('th', { scope: 'col', class: at > 0 ? 'num' : null }, name)));
  return {
    element: h('div', { class: 'scroll' },
      h('table', { class: 'grid' }, h('thead', null, head), body)),
    set: rows.set,
  };
}

function typeRow() {
  const name = h('th', { scope: 'row' });
  const cells = STATUSES.map(() => h('a', { class: 'plain-link' }));
  const workers = h('td', { class: 'num' });

  /** @param {Api.TypeStats} type */
  function update(type) {
    setText(name, title(type.worker_type));
    STATUSES.forEach((status, at) => {
      setAttribute(cells[at], 'href', listAddress(type.worker_type, status));
      setText(cells[at], count(type[status]));
      setAttribute(cells[at], 'data-zero', type[status] === 0 ? 'yes' : null);
      setAttribute(cells[at], 'data-status', status);
    });
    setText(workers, count(type.workers));
  }

  const statusCells = cells.map((cell) => h('td', { class: 'num' }, cell));
  return { element: h('tr', null, name, statusCells, workers), update };
}

function newestTable() {
  const body = h('tbody');
  const rows = operationRows(body);
  const empty = h('p', { class: 'empty', hidden: true },
    'No operations yet. ', h('a', { href: '#/start' }, 'Start the first one.'));
  return {
    element: [
      h('div', { class: 'scroll' }, h('table', { class: 'grid rows' }, tableHead(), body)),
      empty,
    ],
    get: rows.get,
    /** @param {Api.Operation[]} operations */
    set(operations) {
      rows.set(operations);
      empty.hidden = operations.length > 0;
    },
  };
}
