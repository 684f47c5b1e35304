// All operations, a page at a time. Rows change with each event; the page is fetched again at most
// once a second.

import { operationAddress, operationsAddress } from './addresses.js';
import { api } from './api.js';
import { bulkBar } from './bulk-bar.js';
import { h, show } from './dom.js';
import { filterBar, searchField } from './filter-bar.js';
import { filterFrom, filterQuery, isFiltered } from './list-filter.js';
import { follow, refreshEvery } from './live-view.js';
import { COLUMN_COUNT, operationRows, tableHead } from './operation-row.js';
import { newerOf, pageRange, RowChanges } from './page-changes.js';
import { problemLine } from './problem-line.js';
import { pickKey, rowKeys } from './row-keys.js';
import { Selection } from './selection.js';
import { serverNow } from './server-clock.js';
import { skeletonBody } from './skeleton.js';
import { atMostEvery, perFrame } from './throttle.js';

const PAGE = 50;
const PERMITS_MS = 5000;

// The list that was looked at last, for the way back to it.
let lastAddress = '#/operations';
export const lastListAddress = () => lastAddress;

/** @typedef {import('./list-filter.js').Filter} Filter */

/** @param {ViewContext} context */
export default function operations(context) {
  const { root, signal, query, keys } = context;
  const filter = filterFrom(query);
  const filters = filterBar(filter, choose, signal);
  const search = searchField(filter, choose, openOnly);
  const selection = new Selection(drawPicked);
  const bulk = bulkBar(filter, () => refresh(true), pickNone);
  const pager = makePager(filter, choose);
  const problem = problemLine();
  const empty = h('p', { class: 'empty', hidden: true });
  const loading = skeletonBody(COLUMN_COUNT);
  const body = h('tbody');
  const rows = operationRows(body, selection);

  show(root,
    h('div', { class: 'page-head' }, h('h1', null, 'Operations'), search.form),
    problem.element, filters.element,
    h('section', { class: 'card flush' }, bulk.element,
      h('div', { class: 'scroll' },
        h('table', { class: 'grid rows' },
          h('caption', { class: 'unseen' }, 'Operations, newest first'),
          tableHead(), loading, body)),
      empty),
    pager.element);

  /** @type {import('./filter-bar.js').Choose} */
  function choose(change, isTyping = false) {
    // What is typed is one step of the history, not one for each letter.
    const continues = isTyping && filter.search !== '' && change.search !== '';
    Object.assign(filter, { offset: 0 }, change);
    nameFilter(continues ? 'replace' : 'push');

    filters.update();
    pickNone();
    // Another page has the same filter.
    if (change.offset === undefined) bulk.update();
    if (change.offset !== undefined) scrollTo(0, 0);
    if (change.operation_type !== undefined) subscribe();
    else refresh(true);
  }

  /**
   * Names in the address what is shown, while the view stays.
   * @param {'push' | 'replace'} how whether that is a step of the history
   */
  function nameFilter(how) {
    lastAddress = operationsAddress({ ...filter });
    if (how === 'push') history.pushState(null, '', lastAddress);
    else history.replaceState(null, '', lastAddress);
  }

  /** Offers what can be done for the rows that are picked. */
  function drawPicked() {
    bulk.setPicked(selection.ids.flatMap((id) => rows.get(id)?.document() ?? []));
  }

  function pickNone() {
    const ids = selection.ids;
    selection.keep([]);
    for (const id of ids) {
      const row = rows.get(id);
      row?.update(row.document());
    }
  }

  /** Goes to the operation whose id is searched for. */
  function openOnly() {
    if (rows.get(filter.search)) location.hash = operationAddress(filter.search);
  }

  // Events that arrive while a page is being fetched may be newer than the page.
  /** @type {Map<string, Api.Operation> | null} */
  let arrivedMeanwhile = null;
  const changes = new RowChanges();

  const refresh = atMostEvery(1000, async () => {
    arrivedMeanwhile = new Map();
    try {
      const wanted = { ...filterQuery(filter, serverNow()), limit: PAGE };
      const page = await api.operations(wanted, signal);
      if (page.operations.length === 0 && page.total > 0 && filter.offset > 0) {
        // Nobody has chosen this page: Back must not lead to the empty one, and from there here again.
        filter.offset = Math.floor((page.total - 1) / PAGE) * PAGE;
        nameFilter('replace');
        refresh(true);
        return;
      }
      problem.clear();
      drawPage(page, arrivedMeanwhile);
    } catch (thrown) {
      if (!signal.aborted) problem.show(thrown);
    } finally {
      arrivedMeanwhile = null;
      loading.remove();
    }
  });

  /**
   * @param {Api.OperationPage} page
   * @param {Map<string, Api.Operation>} arrived
   */
  function drawPage(page, arrived) {
    changes.clear();
    rows.set(page.operations.map((document) =>
      newerOf(document, arrived.get(document.operation_id))));

    const end = filter.offset + page.operations.length;
    filters.setRange(pageRange(filter.offset, end, page.total));
    pager.set(filter.offset, end, page.total);
    bulk.setTotal(page.total);
    selection.keep(page.operations.map((one) => one.operation_id));

    empty.hidden = page.operations.length > 0;
    if (empty.hidden) return;
    show(empty, isFiltered(filter)
      ? ['No operation matches the filter. ', h('a', { href: '#/operations' }, 'Show all.')]
      : ['No operations yet. ', h('a', { href: '#/start' }, 'Start one.')]);
  }

  const drawChanges = perFrame(() => {
    for (const [id, { document, progress }] of changes.take()) {
      const row = rows.get(id);
      if (document) row?.update(document);
      else if (progress) row?.setProgress(progress);
    }
  });

  /** @param {Api.Operation} document */
  function takeOperation(document) {
    const { operation_id: id, retry_of: retryOf } = document;
    arrivedMeanwhile?.set(id, document);
    const row = rows.get(id);
    if (row) {
      changes.addDocument(document);
      drawChanges();
    }
    const repeated = retryOf && rows.get(retryOf);
    if (repeated) repeated.update({ ...repeated.document(), retried_as: id });

    // New operations, and those that enter or leave the filter, change the page.
    const leavesFilter = row && filter.status && row.document().status !== document.status;
    if (!row || leavesFilter || document.status === 'pending') refresh();
  }

  /** @param {Api.ProgressEvent} event */
  function takeProgress(event) {
    if (!rows.get(event.operation_id)) return;
    changes.addProgress(event.operation_id, event.progress);
    drawChanges();
  }

  function subscribe() {
    const type = filter.operation_type;
    const url = `/api/v1/events${type ? `?operation_type=${encodeURIComponent(type)}` : ''}`;
    follow(context, url, {
      open: (missed) => {
        if (missed) filters.loadTypes();
      },
      operation: takeOperation,
      progress: takeProgress,
    }, refresh);
  }

  /** Shows how long running operations have taken by now, and how long delayed ones still wait. */
  function updateTimes() {
    for (const element of body.querySelectorAll('tr:is([data-status="running"], [data-status="pending"])')) {
      const row = rows.get(element.getAttribute('data-id') ?? '');
      row?.update(row.document());
    }
  }

  // No event tells that a permit is free or gone.
  const hasKey = (/** @type {Element} */ element) =>
    rows.get(element.getAttribute('data-id') ?? '')?.document().execution?.concurrency;
  const stopRepeating = refreshEvery(PERMITS_MS, () => {
    const waiting = [...body.querySelectorAll('tr[data-status="pending"]')];
    if (waiting.some(hasKey)) refresh();
  });

  // A label in a row narrows the list, unless it is to open elsewhere.
  body.addEventListener('click', (event) => {
    const link = event.target instanceof Element ? event.target.closest('a[data-label]') : null;
    const label = link?.getAttribute('data-label');
    if (!label || event.ctrlKey || event.metaKey || event.shiftKey) return;
    event.preventDefault();
    if (!filter.label.includes(label)) choose({ label: [...filter.label, label] });
  });

  lastAddress = operationsAddress({ ...filter });
  keys([...rowKeys(body), pickKey()]);
  subscribe();
  filters.loadTypes();
  const timer = setInterval(updateTimes, 1000);
  return () => {
    clearInterval(timer);
    stopRepeating();
    refresh.stop();
    search.stop();
  };
}

/**
 * @param {Filter} filter
 * @param {import('./filter-bar.js').Choose} choose
 */
function makePager(filter, choose) {
  /** @type {(label: string, offset: () => number) => HTMLButtonElement} */
  const button = (label, offset) => h('button', {
    type: 'button', class: 'button', disabled: true, onclick: () => choose({ offset: offset() }),
  }, label);
  const newest = button('Newest', () => 0);
  const newer = button('Newer', () => Math.max(0, filter.offset - PAGE));
  // A page of large operations is shorter than `PAGE`.
  let next = 0;
  const older = button('Older', () => next);

  return {
    element: h('nav', { class: 'pager', 'aria-label': 'Pages' }, newest, newer, older),
    /**
     * @param {number} offset
     * @param {number} end
     * @param {number} total
     */
    set(offset, end, total) {
      next = end;
      older.disabled = end >= total;
      newer.disabled = offset === 0;
      newest.disabled = offset === 0;
    },
  };
}
