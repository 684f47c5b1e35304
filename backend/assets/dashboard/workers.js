// The workers as a table: status, what each runs, what it has. A thousand of them are no effort:
// only rows on the screen are elements, and events bring what changes.

import { api } from './api.js';
import { h, setText, show } from './dom.js';
import { count, title } from './format.js';
import { follow, refreshEvery } from './live-view.js';
import { problemLine } from './problem-line.js';
import { rowKeys } from './row-keys.js';
import { serverNow } from './server-clock.js';
import { skeletonBody } from './skeleton.js';
import { atMostEvery, perFrame } from './throttle.js';
import { forgettableTypes } from './unserved-types.js';
import { virtualRows } from './virtual-rows.js';
import { WORKER_STATUS_LABELS } from './worker-facts.js';
import { WorkerTable } from './worker-feed.js';
import { countsOf, describeCounts, groupedEntries, matchingWorkers } from './worker-list.js';
import { WORKER_COLUMNS, entryRow } from './worker-row.js';

// Heartbeats, counters and what ended come only with the list.
const REFRESH_MS = 15000;
const TYPING_MS = 150;

/** @type {Record<string, string>} */
const STATUS_LABELS = { ...WORKER_STATUS_LABELS, 'not-pulling': 'not pulling' };

/** @typedef {import('./worker-list.js').WorkerFilter} WorkerFilter */
/** @typedef {import('./worker-list.js').ListEntry} ListEntry */

/** @param {ListEntry} entry */
const entryKey = (entry) =>
  ('worker' in entry ? `worker ${entry.worker.worker_id}` : `group ${entry.group.worker_type}`);

/**
 * @param {URLSearchParams} query
 * @returns {WorkerFilter}
 */
function filterFrom(query) {
  return {
    search: query.get('search') ?? '',
    worker_type: query.get('worker_type') ?? '',
    status: query.get('status') ?? '',
  };
}

/** @param {ViewContext} context */
export default function workers(context) {
  const { root, signal, query, keys } = context;
  const filter = filterFrom(query);
  const table = new WorkerTable();
  /** @type {Set<string>} */
  const closed = new Set();

  const summary = h('span', { class: 'muted' }, ' ');
  const problem = problemLine();
  const filters = workerFilters(filter, choose);
  const loading = skeletonBody(WORKER_COLUMNS.length);
  const grid = h('table', { class: 'grid workers' },
    h('caption', { class: 'unseen' }, 'Workers by type; those that need attention first'),
    h('thead', null, h('tr', null, WORKER_COLUMNS.map((name) => h('th', { scope: 'col' }, name)))),
    loading);
  const rows = virtualRows(grid, entryKey, (entry) => entryRow(entry, toggle));
  const empty = h('div', { class: 'empty', hidden: true });
  const unserved = forgettableTypes(signal);
  show(root,
    h('div', { class: 'page-head' }, h('h1', null, 'Workers'), summary),
    problem.element, filters.element,
    h('section', { class: 'card flush' }, h('div', { class: 'scroll' }, grid), empty),
    unserved.element);
  keys(rowKeys(rows.body).filter(({ key }) => key === 'j' || key === 'k'));

  const draw = perFrame(() => {
    if (signal.aborted) return;
    const all = table.all;
    const found = matchingWorkers(all, filter, serverNow());
    rows.set(groupedEntries(found, closed));
    filters.setTypes(all.map((one) => one.worker_type));
    setText(summary, describe(all, found.length));

    empty.hidden = found.length > 0;
    if (all.length > 0) show(empty, 'No worker matches the filter.');
    else show(empty, 'No worker is here. Start one with:', h('pre', null, 'WORKER_TYPE=dummy ktrdr-worker'));
  });

  /** @param {string} type */
  function toggle(type) {
    if (!closed.delete(type)) closed.add(type);
    draw();
  }

  /** @param {Partial<WorkerFilter>} change */
  function choose(change) {
    Object.assign(filter, change);
    const named = new URLSearchParams(Object.entries(filter).filter(([, value]) => value !== ''));
    const written = named.toString();
    history.replaceState(null, '', `#/workers${written === '' ? '' : `?${written}`}`);
    draw();
  }

  const refresh = atMostEvery(1000, async () => {
    try {
      await table.read(() => api.workers(signal));
      problem.clear();
      draw();
    } catch (thrown) {
      if (!signal.aborted) problem.show(thrown);
    }
    loading.remove();
  });

  follow(context, '/api/v1/events', {
    open: () => unserved.refresh(),
    worker: (event) => {
      table.take(event);
      draw();
    },
    progress: (event) => rows.get(`worker ${event.worker_id}`)?.setProgress(event),
  }, refresh);
  const stopRepeating = refreshEvery(REFRESH_MS, () => {
    refresh();
    unserved.refresh();
  });
  return () => {
    stopRepeating();
    refresh.stop();
    filters.stop();
    rows.stop();
  };
}

/**
 * @param {Api.Worker[]} all
 * @param {number} shown
 */
function describe(all, shown) {
  if (all.length === 0) return '';
  const described = describeCounts(countsOf(all));
  return shown < all.length ? `${count(shown)} of ${described}` : described;
}

/**
 * @param {WorkerFilter} filter
 * @param {(change: Partial<WorkerFilter>) => void} choose
 */
function workerFilters(filter, choose) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const search = h('input', {
    id: 'worker-search', type: 'search', placeholder: 'Id, address, what it has or runs   /',
    'aria-label': 'Search workers', autocomplete: 'off', spellcheck: 'false', value: filter.search,
    oninput: () => {
      clearTimeout(timer);
      timer = setTimeout(() => choose({ search: search.value.trim() }), TYPING_MS);
    },
  });
  const type = h('select', {
    id: 'worker-type', 'aria-label': 'Type', onchange: () => choose({ worker_type: type.value }),
  }, h('option', { value: '' }, 'All types'));
  const status = h('select', {
    id: 'worker-status', 'aria-label': 'Status', onchange: () => choose({ status: status.value }),
  }, h('option', { value: '' }, 'All statuses'),
  Object.entries(STATUS_LABELS).map(([value, label]) => h('option', { value }, title(label))));
  status.value = filter.status;
  setTypes(filter.worker_type ? [filter.worker_type] : []);
  type.value = filter.worker_type;

  /** @param {string[]} names */
  function setTypes(names) {
    const listed = new Set([...type.options].map((option) => option.value));
    const added = [...new Set(names)].filter((name) => !listed.has(name)).sort();
    type.append(...added.map((name) => h('option', { value: name }, title(name))));
  }

  return {
    element: h('div', { class: 'filters' }, search, type, status),
    setTypes,
    stop: () => clearTimeout(timer),
  };
}
