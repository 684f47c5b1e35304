// The overview: how much waits, how fast it goes, what fails, who works.

import { api } from './api.js';
import { bars } from './chart.js';
import { STATUSES, attr, h, icon, keyed, show, text } from './dom.js';
import { count, duration, now, title } from './format.js';
import { atMostEvery, doubt } from './live.js';
import { operationRow, tableHead } from './rows.js';

const RECENT = 8;

export default function overview({ root, signal, listen }) {
  const tiles = {
    pending: tile('Waiting', 'pending', '#/operations?status=pending'),
    running: tile('Running', 'running', '#/operations?status=running'),
    rate: tile('Ended in a minute', 'completed', '#/operations'),
    failures: tile('Failed in 15 minutes', 'failed', '#/operations?status=failed'),
    workers: tile('Workers', 'chip', '#/workers'),
  };
  const chart = bars({ label: 'Operations ended in each of the last 60 minutes' });
  const queues = h('tbody');
  const noQueues = h('p', { class: 'empty', hidden: true }, 'Nothing was ever queued. Start a worker, then an operation.');
  const queueList = keyed(queues, (queue) => `${queue.worker_type} ${queue.queue}`, queueRow);
  const types = h('tbody');
  const typeList = keyed(types, (type) => type.worker_type, typeRow);
  const recent = h('tbody');
  const recentList = keyed(recent, (operation) => operation.operation_id, operationRow);
  const noRecent = h('p', { class: 'empty', hidden: true }, 'No operations yet. ', h('a', { href: '#/start' }, 'Start the first one.'));
  const error = h('p', { class: 'problem', hidden: true });

  show(root,
    h('h1', { class: 'quiet' }, 'Overview'), error,
    h('div', { class: 'tiles' }, Object.values(tiles).map((one) => one.element)),
    h('div', { class: 'columns' },
      h('section', { class: 'card' },
        h('header', null, h('h2', null, 'Throughput'), h('span', { class: 'muted' }, 'last 60 minutes')), chart.element),
      h('section', { class: 'card' },
        h('header', null, h('h2', null, 'Queues'), h('span', { class: 'muted' }, 'what waits, and for how long')),
        h('div', { class: 'scroll' }, h('table', { class: 'grid' },
          h('thead', null, h('tr', null, ['Queue', 'Waiting', 'Running', 'Oldest'].map((name, at) => h('th', { scope: 'col', class: at > 0 ? 'num' : '' }, name)))), queues)), noQueues)),
    h('section', { class: 'card' },
      h('header', null, h('h2', null, 'By type')),
      h('div', { class: 'scroll' }, h('table', { class: 'grid' },
        h('thead', null, h('tr', null, h('th', { scope: 'col' }, 'Type'), STATUSES.map((name) => h('th', { scope: 'col', class: 'num' }, title(name))),
          h('th', { scope: 'col', class: 'num' }, 'Workers'))), types))),
    h('section', { class: 'card' },
      h('header', null, h('h2', null, 'Newest operations'), h('a', { href: '#/operations' }, 'All operations')),
      h('div', { class: 'scroll' }, h('table', { class: 'grid rows' }, tableHead(), recent)), noRecent));

  const refresh = atMostEvery(1000, async () => {
    try {
      const [stats, page] = await Promise.all([api.stats(signal), api.operations({ limit: RECENT }, signal)]);
      error.hidden = true;
      draw(stats.data);
      recentList.set(page.operations);
      noRecent.hidden = page.operations.length > 0;
    } catch (problem) {
      if (signal.aborted) return;
      doubt(problem);
      error.hidden = false;
      text(error, problem.message);
    }
  });

  function draw(stats) {
    const { operations, queues: lanes, workers, minutes } = stats;
    tiles.pending.set(count(operations.pending), waits(lanes));
    tiles.running.set(count(operations.running), `${count(operations.total)} operations in all`);
    const ended = (minute) => minute.completed + minute.failed + minute.cancelled;
    // The last 60 seconds: the minute that is running, and the rest of the one before.
    const gone = Math.min(1, Math.max(0, (now() - Date.parse(minutes.at(-1).minute)) / 60000));
    const latest = ended(minutes.at(-1)) + ended(minutes.at(-2)) * (1 - gone);
    const hour = minutes.reduce((sum, minute) => sum + ended(minute), 0);
    tiles.rate.set(count(Math.round(latest)), `${count(hour)} in the last hour`);
    const quarter = minutes.slice(-15);
    const failed = quarter.reduce((sum, minute) => sum + minute.failed, 0);
    const all = quarter.reduce((sum, minute) => sum + minute.completed + minute.failed, 0);
    tiles.failures.set(count(failed), all > 0 ? `${(failed / all * 100).toFixed(failed === 0 ? 0 : 1)} % of ${count(all)} finished` : 'nothing finished');
    tiles.failures.mark(failed > 0 ? 'failed' : '');
    const silent = workers.TEMPORARILY_UNAVAILABLE;
    tiles.workers.set(count(workers.AVAILABLE + workers.BUSY),
      `${count(workers.BUSY)} busy, ${count(workers.AVAILABLE)} free${silent > 0 ? `, ${count(silent)} silent` : ''}`);
    tiles.workers.mark(silent > 0 ? 'failed' : '');
    chart.set(minutes);
    queueList.set(lanes);
    noQueues.hidden = lanes.length > 0;
    typeList.set(stats.by_type);
  }

  listen('/api/v1/events', {
    open: () => refresh(true), reset: () => refresh(true), operation: () => refresh(), worker: () => refresh(),
    progress: (message) => recentList.get(message.operation_id)?.progress(message.progress),
  });
  refresh(true);
  // Ages and the minute bars move on when nothing happens.
  const timer = setInterval(() => refresh(), 10000);
  return () => { clearInterval(timer); refresh.stop(); };
}

function tile(label, name, target) {
  const value = h('strong', null, '–');
  const note = h('small', null, ' ');
  const element = h('a', { class: 'tile', href: target }, h('span', { class: 'tile-label' }, icon(name), label), value, note);
  return {
    element,
    set(shown, detail) { text(value, shown); text(note, detail); },
    mark(kind) { attr(element, 'data-mark', kind || null); },
  };
}

function waits(lanes) {
  const oldest = Math.max(0, ...lanes.map((lane) => lane.oldest_pending_seconds ?? 0));
  return oldest > 0 ? `oldest for ${duration(Math.round(oldest))}` : 'nothing waits';
}

function queueRow() {
  const [name, waiting, running, oldest] = [h('th', { scope: 'row' }), h('td', { class: 'num' }), h('td', { class: 'num' }), h('td', { class: 'num' })];
  let shown = '';
  return {
    element: h('tr', null, name, waiting, running, oldest),
    update(queue) {
      const key = `${queue.worker_type} ${queue.queue}`;
      if (shown !== key) {
        shown = key;
        show(name, h('a', { href: `#/operations?operation_type=${encodeURIComponent(queue.worker_type)}&status=pending` }, title(queue.worker_type)),
          ' ', h('code', { class: 'tag' }, queue.queue));
      }
      text(waiting, count(queue.pending));
      text(running, count(queue.running));
      text(oldest, queue.oldest_pending_seconds === null ? '–' : duration(Math.round(queue.oldest_pending_seconds)));
    },
  };
}

function typeRow() {
  const name = h('th', { scope: 'row' });
  const cells = STATUSES.map(() => h('a', { class: 'plain-link' }));
  const workers = h('td', { class: 'num' });
  return {
    element: h('tr', null, name, cells.map((cell) => h('td', { class: 'num' }, cell)), workers),
    update(type) {
      text(name, title(type.worker_type));
      STATUSES.forEach((status, at) => {
        attr(cells[at], 'href', `#/operations?operation_type=${encodeURIComponent(type.worker_type)}&status=${status}`);
        text(cells[at], count(type[status]));
        attr(cells[at], 'data-zero', type[status] === 0 ? 'yes' : null);
        attr(cells[at], 'data-status', status);
      });
      text(workers, count(type.workers));
    },
  };
}
