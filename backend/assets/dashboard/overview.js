// The overview: what needs attention, what waits and runs, throughput, what failed and why.

import { operationsAddress } from './addresses.js';
import { api } from './api.js';
import { pausedTypes, pointersOf } from './attention.js';
import { minuteChart } from './bar-chart.js';
import { endedCard } from './ended-card.js';
import { h, keyedList, setAttribute, setText, show } from './dom.js';
import { figureTable } from './figure-table.js';
import { count, duration, title } from './format.js';
import { icon } from './icons.js';
import { follow, refreshEvery } from './live-view.js';
import { COLUMN_COUNT, operationRows, tableHead } from './operation-row.js';
import { problemLine } from './problem-line.js';
import { queueTable } from './queue-table.js';
import { rowKeys } from './row-keys.js';
import { serverNow } from './server-clock.js';
import { skeletonBody } from './skeleton.js';
import { STATUSES } from './status.js';
import { atMostEvery } from './throttle.js';
import { endedIn, endedInLastMinute, failuresIn } from './throughput.js';

const NEWEST = 8;
const FAILURE_MINUTES = 15;
// Ages and bars move on although no event comes.
const REFRESH_MS = 10000;

/** @param {ViewContext} context */
export default function overview(context) {
  const { root, signal, keys } = context;
  const attention = attentionList();
  const tiles = makeTiles();
  const chart = minuteChart('Operations ended in each of the last 60 minutes');
  const queues = queueTable(() => refresh(true));
  const types = typeTable();
  const newest = newestTable();
  const ended = endedCard();
  const problem = problemLine();

  show(root,
    h('h1', { class: 'unseen' }, 'Overview'), problem.element, attention.element, tiles.element,
    h('div', { class: 'columns' },
      card('Throughput', muted('last 60 minutes'), chart.element),
      card('Queues', h('a', { href: '#/queues' }, 'All queues'), queues.element)),
    h('div', { class: 'columns' }, ended.element, card('By type', null, types.element)),
    card('Newest operations', h('a', { href: '#/operations' }, 'All operations'), newest.element));
  keys(rowKeys(newest.body));

  const refresh = atMostEvery(1000, async () => {
    try {
      const [stats, page, overviews] = await Promise.all([
        api.stats(signal), api.operations({ limit: NEWEST }, signal), api.queues(signal),
      ]);
      const paused = pausedTypes(overviews);
      problem.clear();
      attention.set(pointersOf(stats, paused));
      tiles.set(stats);
      chart.set(stats.minutes);
      queues.set(overviews, paused, stats.workers);
      types.set(stats.by_type);
      ended.set(stats.ended);
      newest.set(page.operations);
    } catch (thrown) {
      if (!signal.aborted) problem.show(thrown);
    }
  });

  follow(context, '/api/v1/events', {
    operation: () => refresh(),
    worker: () => refresh(),
    progress: (event) => newest.get(event.operation_id)?.setProgress(event.progress),
  }, refresh);
  const stopRepeating = refreshEvery(REFRESH_MS, refresh);
  return () => {
    stopRepeating();
    refresh.stop();
  };
}

/** What somebody should look at; nothing when all is well. */
function attentionList() {
  const list = h('ul');
  const element = h('section', { class: 'card attention', hidden: true, 'aria-label': 'Needs attention' },
    list);
  let shown = '';
  return {
    element,
    /** @param {import('./attention.js').Pointer[]} pointers */
    set(pointers) {
      const written = JSON.stringify(pointers);
      if (written === shown) return;
      shown = written;
      element.hidden = pointers.length === 0;
      show(list, pointers.map(({ status, text, detail, address }) => h('li', { 'data-status': status },
        icon('note'), h('div', null, h('a', { href: address }, text), ' ', muted(detail)))));
    },
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
  const pending = tile('Pending', 'pending', operationsAddress({ status: 'pending' }));
  const running = tile('Running', 'running', operationsAddress({ status: 'running' }));
  const rate = tile('Ended in the last minute', 'completed', '#/operations');
  const failures = tile('Failed in 15 minutes', 'failed', '#/operations');
  const workers = tile('Workers', 'chip', '#/workers');
  const all = [pending, running, rate, failures, workers];

  return {
    element: h('div', { class: 'tiles' }, all.map((one) => one.element)),
    /** @param {Api.Stats} stats */
    set({ operations, queues, workers: byStatus, minutes }) {
      pending.set(count(operations.pending), oldestPending(queues));
      running.set(count(operations.running), `${count(operations.total)} operations in all`);
      rate.set(count(endedInLastMinute(minutes, serverNow())),
        `${count(endedIn(minutes))} in the last hour`);

      const latest = minutes.slice(-FAILURE_MINUTES);
      const { failed, share } = failuresIn(latest);
      failures.set(count(failed), share);
      failures.lead(operationsAddress({ status: 'failed', ended_after: latest[0]?.minute ?? '' }));
      failures.mark(failed > 0);

      const here = byStatus.AVAILABLE + byStatus.BUSY + byStatus.DRAINING;
      workers.set(count(here), workerSummary(byStatus));
    },
  };
}

/**
 * @param {string} label
 * @param {string} iconName
 * @param {string} target
 */
function tile(label, iconName, target) {
  const value = h('strong', null, h('span', { class: 'skeleton' }));
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
    /** @param {string} address */
    lead(address) {
      setAttribute(element, 'href', address);
    },
    /** @param {boolean} isFailed */
    mark(isFailed) {
      setAttribute(element, 'data-mark', isFailed ? 'failed' : null);
    },
  };
}

/** @param {Api.Queue[]} queues */
function oldestPending(queues) {
  const oldest = Math.max(0, ...queues.map((queue) => queue.oldest_pending_seconds ?? 0));
  return oldest > 0 ? `oldest for ${duration(Math.round(oldest))}` : 'none waits';
}

/** @param {Api.Stats['workers']} byStatus */
function workerSummary({
  BUSY: busy, AVAILABLE: available, DRAINING: draining, TEMPORARILY_UNAVAILABLE: silent,
}) {
  const rare = [[draining, 'draining'], [silent, 'silent']].filter(([number]) => Number(number) > 0);
  return [[busy, 'busy'], [available, 'available'], ...rare]
    .map(([number, label]) => `${count(Number(number))} ${label}`).join(', ');
}

function typeTable() {
  const body = h('tbody');
  const rows = keyedList(body, (/** @type {Api.TypeStats} */ type) => type.worker_type, typeRow);
  const table = figureTable(['Type', ...STATUSES.map(title), 'Workers'], body);
  return { element: h('div', { class: 'type-sums' }, table), set: rows.set };
}

function typeRow() {
  const name = h('th', { scope: 'row' });
  const cells = STATUSES.map(() => h('a', { class: 'plain-link' }));
  const workers = h('td', { class: 'num' });

  /** @param {Api.TypeStats} type */
  function update(type) {
    setText(name, title(type.worker_type));
    STATUSES.forEach((status, at) => {
      setAttribute(cells[at], 'href', operationsAddress({ operation_type: type.worker_type, status }));
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
  const loading = skeletonBody(COLUMN_COUNT, NEWEST);
  const body = h('tbody');
  const rows = operationRows(body);
  const empty = h('p', { class: 'empty', hidden: true },
    'No operations yet. ', h('a', { href: '#/start' }, 'Start the first one.'));
  return {
    element: [
      h('div', { class: 'scroll' }, h('table', { class: 'grid rows' }, tableHead(), loading, body)),
      empty,
    ],
    body,
    get: rows.get,
    /** @param {Api.Operation[]} operations */
    set(operations) {
      loading.remove();
      rows.set(operations);
      empty.hidden = operations.length > 0;
    },
  };
}
