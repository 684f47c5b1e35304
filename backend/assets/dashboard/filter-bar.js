// What a user chooses to see in the list of operations.

import { api, asApiError } from './api.js';
import { h, setText, show } from './dom.js';
import { localTime, moment, title } from './format.js';
import { RANGES } from './list-filter.js';
import { STATUSES } from './status.js';
import { liveStream } from './stream.js';

/** @typedef {import('./list-filter.js').Filter} Filter */
/**
 * @typedef {(change: Partial<Filter>, isTyping?: boolean) => void} Choose `isTyping`: more
 *   changes of the same kind follow
 */

const TYPING_MS = 300;
const CUSTOM = 'custom';

/**
 * @param {Filter} filter the one of the view, which `choose` changes
 * @param {Choose} choose
 * @param {AbortSignal} signal
 */
export function filterBar(filter, choose, signal) {
  const type = typeSelect(filter, choose);
  const status = h('select', {
    id: 'filter-status', onchange: () => choose({ status: status.value }),
  }, h('option', { value: '' }, 'All statuses'),
  STATUSES.map((name) => h('option', { value: name }, title(name))));
  status.value = filter.status;

  const worker = workerInput(filter, choose, signal);
  const label = labelInput(filter, choose);
  const times = timeChoice(filter, choose);
  const chips = h('div', { class: 'filter-chips' });
  const range = h('span', { class: 'muted range', 'aria-live': 'off' }, ' ');
  const element = h('div', { class: 'filters' },
    labelled('Type', type.element), labelled('Status', status), labelled('Time', times.select),
    times.custom, labelled('Worker', worker), labelled('Label', label), chips, h('span', { class: 'grow' }), range);

  /** Shows the filters that have no field, and the button that ends all. */
  function update() {
    const parts = [];
    if (filter.error_code) {
      parts.push(chip(`Error: ${filter.error_code}`, () => choose({ error_code: '' })));
    }
    if (filter.schedule_id) {
      parts.push(chip(`Schedule: ${filter.schedule_id}`, () => choose({ schedule_id: '' })));
    }
    for (const label of filter.label) {
      parts.push(chip(label, () =>
        choose({ label: filter.label.filter((other) => other !== label) })));
    }
    if (filter.ended_after) {
      const end = `Ended since ${moment(filter.ended_after)}`;
      parts.push(chip(end, () => choose({ ended_after: '' })));
    }
    show(chips, parts);
  }

  update();
  return {
    element,
    loadTypes: () => type.load(signal),
    update,
    setRange: (/** @type {string} */ shown) => setText(range, shown),
  };
}

/**
 * @param {string} label
 * @param {HTMLInputElement | HTMLSelectElement} field
 */
const labelled = (label, field) => [h('label', { for: field.id, class: 'unseen' }, label), field];

/**
 * @param {string} label
 * @param {() => void} remove
 */
function chip(label, remove) {
  return h('span', { class: 'filter-chip' }, label, h('button', {
    type: 'button', class: 'plain', 'aria-label': `Remove the filter ${label}`, onclick: remove,
  }, '×'));
}

/** @param {string} name */
const typeOption = (name) => h('option', { value: name }, title(name));

/**
 * @param {Filter} filter
 * @param {Choose} choose
 */
function typeSelect(filter, choose) {
  const element = h('select', {
    id: 'filter-type', onchange: () => choose({ operation_type: element.value }),
  }, h('option', { value: '' }, 'All types'));
  if (filter.operation_type) element.append(typeOption(filter.operation_type));
  element.value = filter.operation_type;

  /** @param {AbortSignal} signal */
  async function load(signal) {
    try {
      const types = await api.workerTypes(signal);
      const listed = new Set([...element.options].map((option) => option.value));
      const added = types.map((one) => one.worker_type).filter((name) => !listed.has(name));
      element.append(...added.map(typeOption));
    } catch (thrown) {
      if (!signal.aborted) liveStream.checkAfter(asApiError(thrown));
    }
  }

  return { element, load };
}

/**
 * @param {Filter} filter
 * @param {Choose} choose
 * @param {AbortSignal} signal
 */
function workerInput(filter, choose, signal) {
  const list = h('datalist', { id: 'worker-ids' });
  const input = h('input', {
    id: 'filter-worker', type: 'search', list: list.id, placeholder: 'Any worker',
    autocomplete: 'off', spellcheck: 'false', maxlength: 128, value: filter.worker_id,
    onchange: () => choose({ worker_id: input.value.trim() }),
  });
  input.append(list);

  // Asked for when somebody is about to choose one: there may be a thousand.
  input.addEventListener('focus', async () => {
    try {
      const workers = await api.workers(signal);
      show(list, workers.map((one) => h('option', { value: one.worker_id })));
    } catch (thrown) {
      if (!signal.aborted) liveStream.checkAfter(asApiError(thrown));
    }
  }, { once: true });
  return input;
}

/**
 * Takes one label after the other; each becomes a chip.
 * @param {Filter} filter
 * @param {Choose} choose
 */
function labelInput(filter, choose) {
  const input = h('input', {
    id: 'filter-label', type: 'search', placeholder: 'Label: name:value', autocomplete: 'off',
    spellcheck: 'false', maxlength: 320, onchange: take,
  });

  function take() {
    const label = input.value.trim();
    input.value = '';
    if (label !== '' && !filter.label.includes(label)) choose({ label: [...filter.label, label] });
  }

  return input;
}

/**
 * @param {Filter} filter
 * @param {Choose} choose
 */
function timeChoice(filter, choose) {
  const isCustom = filter.created_after !== '' || filter.created_before !== '';
  const select = h('select', { id: 'filter-time', onchange: takeRange },
    h('option', { value: '' }, 'Any time'),
    RANGES.map(([name, , label]) => h('option', { value: name }, label)),
    h('option', { value: CUSTOM }, 'From … to …'));
  select.value = isCustom ? CUSTOM : filter.since;

  const from = timeField('Created from', filter.created_after, (time) =>
    choose({ created_after: time }));
  const to = timeField('Created before', filter.created_before, (time) =>
    choose({ created_before: time }));
  const custom = h('span', { class: 'from-to', hidden: !isCustom }, from, ' – ', to);

  function takeRange() {
    custom.hidden = select.value !== CUSTOM;
    if (!custom.hidden) {
      from.focus();
      return;
    }
    from.value = '';
    to.value = '';
    choose({ since: select.value, created_after: '', created_before: '' });
  }

  /**
   * @param {string} label
   * @param {string} value
   * @param {(time: string) => void} take
   */
  function timeField(label, value, take) {
    const field = h('input', {
      type: 'datetime-local', 'aria-label': label, value: localTime(value),
      onchange: () => {
        filter.since = '';
        take(field.value === '' ? '' : new Date(field.value).toISOString());
      },
    });
    return field;
  }

  return { select, custom };
}

/**
 * The field that finds by id and text.
 * @param {Filter} filter
 * @param {Choose} choose
 * @param {() => void} open goes to the operation that was found, if it is one
 */
export function searchField(filter, choose, open) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const input = h('input', {
    id: 'search', type: 'search', placeholder: 'Search: text, id, error   /', autocomplete: 'off',
    spellcheck: 'false', maxlength: 128, value: filter.search,
  });

  function take() {
    clearTimeout(timer);
    const text = input.value.trim();
    if (text !== filter.search) choose({ search: text }, true);
  }

  input.addEventListener('input', () => {
    clearTimeout(timer);
    timer = setTimeout(take, TYPING_MS);
  });
  const form = h('form', {
    class: 'search', role: 'search', onsubmit: (/** @type {SubmitEvent} */ event) => {
      event.preventDefault();
      const isNew = input.value.trim() !== filter.search;
      take();
      if (!isNew) open();
    },
  }, h('label', { for: 'search', class: 'unseen' }, 'Search in ids, texts and errors'), input);
  return { form, stop: () => clearTimeout(timer) };
}
