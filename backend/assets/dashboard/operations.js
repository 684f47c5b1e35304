// All operations, a page at a time. Rows change with each event; the page is fetched again at most
// once a second.

import { operationAddress, operationsAddress } from './addresses.js';
import { api, asApiError } from './api.js';
import { h, setText, show } from './dom.js';
import { title } from './format.js';
import { operationRows, tableHead } from './operation-row.js';
import { newerOf, pageRange, RowChanges } from './page-changes.js';
import { STATUSES } from './status.js';
import { liveStream } from './stream.js';
import { atMostEvery, perFrame } from './throttle.js';

const PAGE = 25;

// The list that was looked at last, for the way back to it.
let lastAddress = '#/operations';
export const lastListAddress = () => lastAddress;

/** @typedef {{ operation_type: string, status: string, offset: number }} Filter */

/**
 * @param {URLSearchParams} query
 * @returns {Filter}
 */
function filterFrom(query) {
  const status = query.get('status') ?? '';
  const offset = Number.parseInt(query.get('offset') ?? '0', 10) || 0;
  return {
    operation_type: query.get('operation_type') ?? '',
    status: STATUSES.some((known) => known === status) ? status : '',
    offset: Math.max(0, offset),
  };
}

/** @param {ViewContext} context */
export default function operations({ root, signal, listen, query }) {
  const filter = filterFrom(query);
  const filters = filterBar(filter, choose);
  const search = searchForm(signal);
  const pager = makePager(filter, choose);
  const problem = h('p', { class: 'problem', hidden: true });
  const empty = h('p', { class: 'empty', hidden: true });
  const body = h('tbody');
  const rows = operationRows(body);

  show(root,
    h('div', { class: 'page-head' }, h('h1', null, 'Operations'), search.form),
    search.problem, problem, filters.element,
    h('section', { class: 'card flush' },
      h('div', { class: 'scroll' },
        h('table', { class: 'grid rows' },
          h('caption', { class: 'unseen' }, 'Operations, newest first'), tableHead(), body)),
      empty),
    pager.element);

  /** @param {Partial<Filter>} change */
  function choose(change) {
    Object.assign(filter, { offset: 0 }, change);
    // The address names what is shown, but the view stays.
    lastAddress = operationsAddress(filter);
    history.replaceState(null, '', lastAddress);
    subscribe();
    refresh(true);
  }

  // Events that arrive while a page is being fetched may be newer than the page.
  /** @type {Map<string, Api.Operation> | null} */
  let arrivedMeanwhile = null;
  const changes = new RowChanges();

  const refresh = atMostEvery(1000, async () => {
    arrivedMeanwhile = new Map();
    try {
      const page = await api.operations({ ...filter, limit: PAGE }, signal);
      if (page.operations.length === 0 && page.total > 0 && filter.offset > 0) {
        choose({ offset: Math.floor((page.total - 1) / PAGE) * PAGE });
        return;
      }
      problem.hidden = true;
      drawPage(page, arrivedMeanwhile);
    } catch (thrown) {
      if (signal.aborted) return;
      const error = asApiError(thrown);
      liveStream.checkAfter(error);
      problem.hidden = false;
      setText(problem, error.message);
    } finally {
      arrivedMeanwhile = null;
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

    empty.hidden = page.operations.length > 0;
    if (empty.hidden) return;
    const isFiltered = filter.status !== '' || filter.operation_type !== '';
    show(empty, isFiltered ? 'No operation matches the filter. ' : 'No operations yet. ',
      h('a', { href: '#/start' }, 'Start one.'));
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
    arrivedMeanwhile?.set(document.operation_id, document);
    const row = rows.get(document.operation_id);
    if (row) {
      changes.addDocument(document);
      drawChanges();
    }

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
    listen(`/api/v1/events${type ? `?operation_type=${encodeURIComponent(type)}` : ''}`, {
      open: (missed) => {
        refresh(true);
        if (missed) filters.loadTypes(signal);
      },
      reset: () => refresh(true),
      operation: takeOperation,
      progress: takeProgress,
    });
  }

  /** Shows how long running operations have taken by now. */
  function updateRunning() {
    for (const element of body.querySelectorAll('tr[data-status="running"]')) {
      const row = rows.get(element.getAttribute('data-id') ?? '');
      row?.update(row.document());
    }
  }

  lastAddress = operationsAddress(filter);
  subscribe();
  refresh(true);
  filters.loadTypes(signal);
  const timer = setInterval(updateRunning, 1000);
  return () => {
    clearInterval(timer);
    refresh.stop();
  };
}

/**
 * @param {Filter} filter
 * @param {(change: Partial<Filter>) => void} choose
 */
function filterBar(filter, choose) {
  const type = h('select', {
    id: 'filter-type', onchange: () => choose({ operation_type: type.value }),
  }, h('option', { value: '' }, 'All types'));
  if (filter.operation_type) type.append(typeOption(filter.operation_type));
  type.value = filter.operation_type;

  const status = h('select', {
    id: 'filter-status', onchange: () => choose({ status: status.value }),
  }, h('option', { value: '' }, 'All statuses'),
  STATUSES.map((name) => h('option', { value: name }, title(name))));
  status.value = filter.status;

  const range = h('span', { class: 'muted', 'aria-live': 'off' }, ' ');
  const element = h('div', { class: 'filters' },
    h('label', { for: 'filter-type' }, 'Type'), type,
    h('label', { for: 'filter-status' }, 'Status'), status,
    h('span', { class: 'grow' }), range);

  /** @param {AbortSignal} signal */
  async function loadTypes(signal) {
    try {
      const types = await api.workerTypes(signal);
      const listed = new Set([...type.options].map((option) => option.value));
      const added = types.map((one) => one.worker_type).filter((name) => !listed.has(name));
      type.append(...added.map(typeOption));
    } catch (thrown) {
      if (!signal.aborted) liveStream.checkAfter(asApiError(thrown));
    }
  }

  return { element, loadTypes, setRange: (/** @type {string} */ shown) => setText(range, shown) };
}

/** @param {string} name */
const typeOption = (name) => h('option', { value: name }, title(name));

/** @param {AbortSignal} signal */
function searchForm(signal) {
  const input = h('input', {
    id: 'search', type: 'search', placeholder: 'Operation id', autocomplete: 'off',
    spellcheck: 'false', maxlength: 128,
  });
  const problem = h('p', { class: 'field-error', id: 'search-error', role: 'alert' });

  /** @param {SubmitEvent} event */
  async function find(event) {
    event.preventDefault();
    setText(problem, '');
    const id = input.value.trim();
    if (id === '') return;
    try {
      await api.operation(id, signal);
      location.hash = operationAddress(id);
    } catch (thrown) {
      if (signal.aborted) return;
      const error = asApiError(thrown);
      liveStream.checkAfter(error);
      setText(problem, error.message);
    }
  }

  const form = h('form', { class: 'search', role: 'search', onsubmit: find },
    h('label', { for: 'search', class: 'unseen' }, 'Find by operation id'),
    input, h('button', { class: 'button', type: 'submit' }, 'Find'));
  return { form, problem };
}

/**
 * @param {Filter} filter
 * @param {(change: Partial<Filter>) => void} choose
 */
function makePager(filter, choose) {
  /** @type {(label: string, offset: () => number) => HTMLButtonElement} */
  const button = (label, offset) => h('button', {
    type: 'button', class: 'button', onclick: () => choose({ offset: offset() }),
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
