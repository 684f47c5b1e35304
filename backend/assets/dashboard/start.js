// Starts an operation: chooses the worker type, and shows its form.

import { operationAddress, startAddress } from './addresses.js';
import { asApiError, call } from './api.js';
import { h, show } from './dom.js';
import { readJson } from './exact.js';
import { title } from './format.js';
import { skeletonLines } from './skeleton.js';
import { requestOf } from './start-again.js';
import { startForm } from './start-form.js';
import { QUIET_STREAM } from './stream.js';
import { atMostEvery } from './throttle.js';

// How often the worker types are fetched while there are none, or no worker of the chosen one.
const RETRY_MS = 3000;

/** @param {ViewContext} context */
export default function start({ root, signal, argument, listen, query }) {
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
  const box = h('div', null, skeletonLines(8));
  const like = h('p', { class: 'note', hidden: true });
  // The operation whose request the form begins with, until another type is chosen.
  let model = query.get('like') ?? '';
  /** @type {Awaited<ReturnType<typeof requestOf>> | null} */
  let request = null;
  show(root,
    h('div', { class: 'page-head' }, h('h1', null, 'Start an operation')),
    h('section', { class: 'card start' },
      h('div', { class: 'field' }, h('label', { for: 'start-type' }, 'What to run'), picker),
      like, box));

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
    if (model !== '' && request === null) await readModel();
    takeTypes(found);
  }

  async function readModel() {
    try {
      request = await requestOf(model, signal);
      like.hidden = false;
      show(like, 'Filled in as ', h('a', { href: operationAddress(model) }, model), ' was started.');
    } catch (thrown) {
      const error = asApiError(thrown);
      if (error.isTemporary || signal.aborted) throw thrown;
      model = '';
      like.hidden = false;
      show(like, `The form is empty: ${error.message}`);
    }
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
    const served = types.filter((type) => type.workers > 0);
    const others = types.filter((type) => type.workers === 0);
    const written = JSON.stringify([served, others].map((list) =>
      list.map((type) => type.worker_type)));
    if (written === picker.dataset.types) return;
    picker.dataset.types = written;

    const option = (/** @type {Api.WorkerType} */ { worker_type: name }) =>
      h('option', { value: name }, title(name));
    const chosen = picker.value;
    show(picker, served.map(option),
      others.length > 0 && h('optgroup', { label: 'No worker is here' }, others.map(option)));
    picker.value = chosen;
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
    request = null;
    model = '';
    like.hidden = true;
    const type = types.find((one) => one.worker_type === picker.value);
    if (type) open(type);
  }

  /** @param {Api.WorkerType} type */
  function open(type) {
    if (!openApi) return;
    const values = request?.type === type.worker_type
      ? { parameters: request.parameters, execution: request.execution }
      : {};
    const form = startForm(type, openApi, signal, values);
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
