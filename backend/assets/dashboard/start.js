// Starts an operation: chooses the worker type, and shows its form.

import { startAddress } from './addresses.js';
import { asApiError, call } from './api.js';
import { h, show } from './dom.js';
import { readJson } from './exact.js';
import { title } from './format.js';
import { startForm } from './start-form.js';
import { QUIET_STREAM } from './stream.js';
import { atMostEvery } from './throttle.js';

// How often the worker types are fetched while there are none, or no worker of the chosen one.
const RETRY_MS = 3000;

/** @param {ViewContext} context */
export default function start({ root, signal, argument, listen }) {
  /** @type {Api.WorkerType[]} */
  let types = [];
  /** @type {OpenApi | null} */
  let openApi = null;
  // The chosen worker type and its form.
  /** @type {{ name: string, workers: number, form: import('./start-form.js').StartForm } | null} */
  let current = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;

  const picker = h('select', { id: 'start-type', disabled: true, onchange: takeChoice });
  const box = h('div');
  show(root,
    h('div', { class: 'page-head' }, h('h1', null, 'Start an operation')),
    h('section', { class: 'card start' },
      h('div', { class: 'field' }, h('label', { for: 'start-type' }, 'What to run'), picker),
      box));

  const load = atMostEvery(1000, async () => {
    clearTimeout(timer);
    if (signal.aborted) return;
    try {
      if (!document.hidden) await fetchTypes();
    } catch (error) {
      if (!signal.aborted && !current) showProblem(asApiError(error).message);
    }
    const hasWorkers = current !== null && current.workers > 0;
    if (!signal.aborted && !hasWorkers) timer = setTimeout(load, RETRY_MS);
  });

  async function fetchTypes() {
    // With `readJson`: some limits in schemas are larger than JavaScript numbers are exact.
    const options = { signal, read: readJson };
    const answer = await call('GET', '/api/v1/worker-types', options);
    const found = answer.data.worker_types;
    if (found.length > 0) openApi ??= await call('GET', '/openapi.json', options);
    takeTypes(found);
  }

  /** @param {string} message */
  function showProblem(message) {
    show(box, h('p', { class: 'problem', role: 'alert' }, message, '. Trying again…'));
  }

  /**
   * Values that the user has entered stay.
   * @param {Api.WorkerType[]} found
   */
  function takeTypes(found) {
    types = found;
    if (current) {
      const { name } = current;
      const type = types.find((one) => one.worker_type === name);
      current.workers = type?.workers ?? 0;
      current.form.setWorkers(current.workers);
      if (!type) return;
    }
    if (types.length === 0) {
      show(box, h('p', { class: 'empty' },
        'No worker type is known yet. Start a worker, and its form appears here.'));
      return;
    }

    updatePicker();
    const type = chosenType();
    picker.value = type.worker_type;
    if (type.worker_type !== current?.name) open(type);
  }

  function updatePicker() {
    const names = types.map((type) => type.worker_type);
    const shown = [...picker.options].map((option) => option.value);
    if (names.join('\n') === shown.join('\n')) return;
    show(picker, names.map((name) => h('option', { value: name }, title(name))));
    picker.disabled = false;
  }

  /** The type that is open or that the address names, else one that has workers. */
  function chosenType() {
    const name = current?.name ?? argument;
    return types.find((type) => type.worker_type === name)
      ?? types.find((type) => type.workers > 0)
      ?? types[0];
  }

  function takeChoice() {
    // Only the address changes, not the view: the focus stays while arrow keys go through the
    // types.
    history.replaceState(null, '', startAddress(picker.value));
    const type = types.find((one) => one.worker_type === picker.value);
    if (type) open(type);
  }

  /** @param {Api.WorkerType} type */
  function open(type) {
    if (!openApi) return;
    const form = startForm(type, openApi, signal);
    current = { name: type.worker_type, workers: type.workers, form };
    show(box, form.element);
    if (type.workers === 0) load();
  }

  // The form needs no events, only to know whether the backend is there. When it is back, the types
  // may be too.
  listen(QUIET_STREAM, { open: () => load(true), reset: () => load() });
  load(true);
  return () => {
    clearTimeout(timer);
    load.stop();
  };
}
