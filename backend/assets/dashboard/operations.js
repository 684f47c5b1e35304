// All operations, a page at a time. What is on the page is live; the page itself is fetched again at most once a second.

import { api } from './api.js';
import { STATUSES, h, keyed, show, text } from './dom.js';
import { count, title } from './format.js';
import { atMostEvery, doubt, perFrame } from './live.js';
import { isNewer, operationRow, tableHead } from './rows.js';

const PAGE = 25;

// The page that was looked at last, for the way back to it.
let shownLast = '#/operations';
export const listAddress = () => shownLast;

export default function operations({ root, signal, listen, query }) {
  const filter = {
    operation_type: query.get('operation_type') ?? '',
    status: STATUSES.includes(query.get('status')) ? query.get('status') : '',
    offset: Math.max(0, Number.parseInt(query.get('offset') ?? '0', 10) || 0),
  };
  const type = h('select', { id: 'filter-type', onchange: () => choose({ operation_type: type.value }) }, h('option', { value: '' }, 'All types'));
  if (filter.operation_type) type.append(h('option', { value: filter.operation_type }, title(filter.operation_type)));
  type.value = filter.operation_type;
  const status = h('select', { id: 'filter-status', onchange: () => choose({ status: status.value }) },
    h('option', { value: '' }, 'All statuses'), STATUSES.map((name) => h('option', { value: name }, title(name))));
  status.value = filter.status;
  const search = h('input', { id: 'search', type: 'search', placeholder: 'Operation id', autocomplete: 'off', spellcheck: 'false', maxlength: 128 });
  const notFound = h('p', { class: 'field-error', id: 'search-error', role: 'alert' });
  const form = h('form', { class: 'search', role: 'search', onsubmit: find },
    h('label', { for: 'search', class: 'unseen' }, 'Find by operation id'), search, h('button', { class: 'button', type: 'submit' }, 'Find'));

  const body = h('tbody');
  const rows = keyed(body, (operation) => operation.operation_id, operationRow);
  const empty = h('p', { class: 'empty', hidden: true });
  const error = h('p', { class: 'problem', hidden: true });
  const range = h('span', { class: 'muted', 'aria-live': 'off' }, ' ');
  const older = h('button', { type: 'button', class: 'button', onclick: () => choose({ offset: filter.offset + PAGE }) }, 'Older');
  const newer = h('button', { type: 'button', class: 'button', onclick: () => choose({ offset: Math.max(0, filter.offset - PAGE) }) }, 'Newer');
  const newest = h('button', { type: 'button', class: 'button', onclick: () => choose({ offset: 0 }) }, 'Newest');
  const card = h('section', { class: 'card flush' },
    h('div', { class: 'scroll' }, h('table', { class: 'grid rows' }, h('caption', { class: 'unseen' }, 'Operations, newest first'), tableHead(), body)), empty);

  show(root,
    h('div', { class: 'page-head' }, h('h1', null, 'Operations'), form),
    notFound, error,
    h('div', { class: 'filters' },
      h('label', { for: 'filter-type' }, 'Type'), type, h('label', { for: 'filter-status' }, 'Status'), status,
      h('span', { class: 'grow' }), range),
    card, h('nav', { class: 'pager', 'aria-label': 'Pages' }, newest, newer, older));

  function address() {
    const search = new URLSearchParams(Object.entries(filter).filter(([, value]) => value !== '' && value !== 0)).toString();
    return `#/operations${search ? `?${search}` : ''}`;
  }

  function choose(change) {
    Object.assign(filter, { offset: 0 }, change);
    // The address names what is shown, without leaving the view.
    shownLast = address();
    history.replaceState(null, '', shownLast);
    subscribe();
    refresh(true);
  }

  async function find(event) {
    event.preventDefault();
    text(notFound, '');
    const id = search.value.trim();
    if (id === '') return;
    try {
      await api.operation(id, signal);
      location.hash = `#/operations/${encodeURIComponent(id)}`;
    } catch (problem) {
      if (signal.aborted) return;
      doubt(problem);
      text(notFound, problem.message);
    }
  }

  // Documents that came since the page was asked for, while it is on its way.
  let arrived = null;
  const refresh = atMostEvery(1000, async () => {
    arrived = new Map();
    try {
      const page = await api.operations({ ...filter, limit: PAGE }, signal);
      if (page.operations.length === 0 && page.total > 0 && filter.offset > 0) return choose({ offset: Math.floor((page.total - 1) / PAGE) * PAGE });
      error.hidden = true;
      changed.clear();
      // What came while the page was on its way may be newer than the page.
      rows.set(page.operations.map((document) => {
        const heard = arrived.get(document.operation_id);
        return heard && isNewer(heard, document) ? heard : document;
      }));
      const last = filter.offset + page.operations.length;
      text(range, page.total === 0 ? 'None' : `${count(filter.offset + 1)}–${count(last)} of ${count(page.total)}`);
      older.disabled = last >= page.total;
      newer.disabled = newest.disabled = filter.offset === 0;
      empty.hidden = page.operations.length > 0;
      if (!empty.hidden) {
        show(empty, filter.status || filter.operation_type ? 'No operation matches the filter. ' : 'No operations yet. ', h('a', { href: '#/start' }, 'Start one.'));
      }
    } catch (problem) {
      if (signal.aborted) return;
      doubt(problem);
      error.hidden = false;
      text(error, problem.message);
    } finally {
      arrived = null;
    }
  });

  // What happened since the last frame: only rows of this page are touched, each once.
  const changed = new Map();
  const draw = perFrame(() => {
    for (const [id, change] of changed) {
      const row = rows.get(id);
      if (!row) continue;
      if (change.document) row.update(change.document);
      else row.progress(change.progress);
    }
    changed.clear();
  });

  function subscribe() {
    const type = filter.operation_type;
    listen(`/api/v1/events${type ? `?operation_type=${encodeURIComponent(type)}` : ''}`, {
      open: (lost) => {
        refresh(true);
        if (lost) loadTypes();
      },
      reset: () => refresh(true),
      operation: (document) => {
        arrived?.set(document.operation_id, document);
        const known = rows.get(document.operation_id);
        if (known) {
          changed.set(document.operation_id, { document });
          draw();
        }
        // New ones, and those that enter or leave the filter, change the page.
        if (!known || (filter.status && known.document().status !== document.status) || document.status === 'pending') refresh();
      },
      progress: (message) => {
        if (!rows.get(message.operation_id)) return;
        const waiting = changed.get(message.operation_id);
        if (waiting?.document) waiting.document.progress = message.progress;
        else changed.set(message.operation_id, { progress: message.progress });
        draw();
      },
    });
  }

  async function loadTypes() {
    try {
      const types = await api.types(signal);
      const listed = new Set([...type.options].map((option) => option.value));
      for (const { worker_type: name } of types) if (!listed.has(name)) type.append(h('option', { value: name }, title(name)));
    } catch (problem) {
      if (!signal.aborted) doubt(problem);
    }
  }

  shownLast = address();
  subscribe();
  refresh(true);
  loadTypes();
  const timer = setInterval(() => {
    for (const element of body.querySelectorAll('tr[data-status="running"]')) {
      const row = rows.get(element.dataset.id);
      if (row) row.update(row.document());
    }
  }, 1000);
  return () => { clearInterval(timer); refresh.stop(); };
}
