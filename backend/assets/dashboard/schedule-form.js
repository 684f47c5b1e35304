// Makes a schedule, or changes one.

import { operationAddress, scheduleAddress } from './addresses.js';
import { asApiError, call, exchange, schedulePath } from './api.js';
import { bodyEditor } from './body-editor.js';
import { h, setText, show } from './dom.js';
import { readJson } from './exact.js';
import { localZone, title } from './format.js';
import { icon } from './icons.js';
import { CATCH_UPS, OVERLAPS, whenText } from './schedule-facts.js';
import { InvalidForm } from './schema-errors.js';
import { fieldRow } from './schema-row.js';
import { skeletonLines } from './skeleton.js';
import { requestOf } from './start-again.js';
import { splitBody } from './start-body.js';
import { unusableNote } from './start-form.js';
import { QUIET_STREAM } from './stream.js';
import { toast } from './toast.js';

/** @typedef {import('./schema-errors.js').ErrorSlot} ErrorSlot */
/** @typedef {import('./body-editor.js').Values} Values */

/**
 * What the form begins with.
 * @typedef {object} Model
 * @property {Api.Schedule | null} schedule the one to change
 * @property {string} type of the worker, or empty
 * @property {Values} values of the body
 */

const ID = /^[A-Za-z0-9_-]{1,64}$/;

/** @param {ViewContext} context */
export default function scheduleFormView({ root, signal, argument: id, query, listen, setTitle }) {
  const box = h('div', null, skeletonLines(8));
  const back = id === undefined ? '#/schedules' : scheduleAddress(id);
  const like = query.get('like') ?? '';
  const name = id === undefined ? 'New schedule' : `Change ${id}`;
  show(root,
    h('a', { class: 'back', href: back }, icon('back'), id ?? 'Schedules'),
    h('div', { class: 'page-head' }, h('h1', null, name)),
    h('section', { class: 'card start' }, box));
  setTitle(name);
  let isLoaded = false;

  async function load() {
    if (isLoaded || signal.aborted) return;
    try {
      // With all digits of the numbers in schemas and bodies.
      const options = { signal, read: readJson };
      const [found, openApi, model] = await Promise.all([
        call('GET', '/api/v1/worker-types', options), call('GET', '/openapi.json', options),
        readModel(id, like, signal),
      ]);
      if (isLoaded) return;
      isLoaded = true;
      show(box, like && h('p', { class: 'note' }, 'Starts what ',
        h('a', { href: operationAddress(like) }, like), ' was started with.'),
      scheduleForm(found.data.worker_types, openApi, model, signal));
    } catch (thrown) {
      if (signal.aborted || isLoaded) return;
      show(box, h('p', { class: 'problem', role: 'alert' }, asApiError(thrown).message));
    }
  }

  listen(QUIET_STREAM, { open: load, reset: load });
  load();
}

/**
 * @param {string | undefined} id
 * @param {string} like
 * @param {AbortSignal} signal
 * @returns {Promise<Model>}
 */
async function readModel(id, like, signal) {
  if (id !== undefined) {
    const { data } = await call('GET', schedulePath(id), { signal, read: readJson });
    return { schedule: data, type: data.operation_type, values: splitBody(data.body) };
  }
  if (like === '') return { schedule: null, type: '', values: {} };
  const { type, parameters, execution } = await requestOf(like, signal);
  return { schedule: null, type, values: { parameters, execution } };
}

/**
 * @param {Api.WorkerType[]} types
 * @param {OpenApi} openApi
 * @param {Model} model
 * @param {AbortSignal} signal
 */
function scheduleForm(types, openApi, model, signal) {
  const { schedule } = model;
  const fields = scheduleFields(schedule);
  const picker = h('select', { id: 'schedule-type', onchange: open },
    types.map(({ worker_type: type }) => h('option', { value: type }, title(type))));
  const box = h('div', { class: 'start-form' });
  const submit = h('button', { type: 'submit', class: 'button primary' }, 'Save');
  /** @type {{ type: Api.WorkerType, body: import('./body-editor.js').BodyEditor } | null} */
  let current = null;
  const refusal = h('div', { class: 'problem', hidden: true, role: 'alert' });

  /** Shows the form of the chosen worker type. */
  function open() {
    const type = types.find((one) => one.worker_type === picker.value);
    if (!type) return;
    const values = type.worker_type === model.type ? model.values : {};
    const body = bodyEditor(type, openApi, values, { hasId: false, base: '/body' });
    current = { type, body };
    show(box, h('div', { class: 'form-head' }, h('h2', null, 'What it starts'), body.tools),
      unusableNote(type), body.fields, body.problem);
  }

  /**
   * @param {Api.WorkerType} type
   * @param {string} body
   */
  const written = (type, body) =>
    `{"domain":${JSON.stringify(type.domain)},"body":${body},${fields.written()}}`;

  /** @param {SubmitEvent} event */
  async function save(event) {
    event.preventDefault();
    if (!current) return;
    const { type, body } = current;
    body.clearErrors();
    fields.clearErrors();
    refusal.hidden = true;
    submit.disabled = true;
    try {
      const text = written(type, body.text());
      const id = schedule?.schedule_id ?? await newId();
      if (id === null) return;
      const { status } = await exchange('PUT', schedulePath(id), { body: text });
      toast(status === 201 ? `Made the schedule ${id}` : `Changed the schedule ${id}`);
      if (!signal.aborted) location.hash = scheduleAddress(id);
    } catch (thrown) {
      body.complain(...fields.take(thrown));
    } finally {
      submit.disabled = false;
    }
  }

  /** The id, if no schedule has it: a new one replaces none by mistake. */
  async function newId() {
    const id = fields.id();
    if (!ID.test(id)) {
      fields.refuse('id', 'Use 1 to 64 of the characters A-Z a-z 0-9 _ -');
      return null;
    }
    try {
      await call('GET', schedulePath(id), { signal });
    } catch (thrown) {
      if (asApiError(thrown).status === 404) return id;
      throw thrown;
    }
    fields.refuse('id', 'A schedule has this id already');
    return null;
  }

  const known = types.some((one) => one.worker_type === model.type);
  if (types.length === 0) {
    return h('p', { class: 'empty' }, 'No worker type is known yet. Start a worker first.');
  }
  if (schedule && !known) {
    return h('p', { class: 'problem' },
      `The worker type ${model.type} is no longer known. Start a worker of it, or delete the schedule.`);
  }
  picker.value = known ? model.type
    : (types.find(({ workers }) => workers > 0) ?? types[0]).worker_type;
  open();
  return h('form', { class: 'start-form', novalidate: true, onsubmit: save },
    fields.element,
    h('div', { class: 'field' }, h('label', { for: picker.id }, 'What to run'), picker),
    box, refusal, h('div', { class: 'form-end' }, submit));
}

/**
 * The fields of a schedule beside its body.
 * @param {Api.Schedule | null} schedule
 */
function scheduleFields(schedule) {
  const text = (/** @type {Record<string, any>} */ more) =>
    h('input', { type: 'text', autocomplete: 'off', spellcheck: 'false', ...more });
  const id = text({ value: '', maxlength: 64, placeholder: 'nightly' });
  const cron = text({ value: schedule?.cron ?? '', placeholder: '30 9 * * MON-FRI', maxlength: 256 });
  const zones = h('datalist', { id: 'time-zones' },
    timeZones().map((zone) => h('option', { value: zone })));
  const zone = text({ value: schedule?.time_zone ?? localZone(), list: zones.id, maxlength: 64 });
  const overlap = select(OVERLAPS, schedule?.overlap);
  const catchUp = select(CATCH_UPS, schedule?.catch_up);
  const paused = h('input', { type: 'checkbox', checked: schedule?.paused ?? false });
  const reading = h('p', { class: 'field-help cron-reading', 'aria-live': 'polite' });

  /**
   * @param {string} name
   * @param {HTMLInputElement | HTMLSelectElement} input
   * @param {string} description
   * @param {Child} [more]
   */
  function row(name, input, description, more = null) {
    const control = {
      input,
      element: more ? h('div', null, input, more) : input,
      isCheckbox: input === paused,
      read: () => input.value || undefined,
    };
    const isMarkedRequired = name === 'id' || name === 'cron';
    return fieldRow(name === 'cron' ? 'cron_line' : name, `/${name}`, control,
      { isMarkedRequired, description, advice: '' });
  }

  const rows = {
    id: row('id', id, 'Its operations are named after it.'),
    cron: row('cron', cron,
      'Minute, hour, day of the month, month, day of the week; with six fields, the second comes first.',
      reading),
    time_zone: row('time_zone', zone, 'The IANA name of the zone in which the line is read.', zones),
    overlap: row('overlap', overlap, 'At a slot while the last operation has not ended.'),
    catch_up: row('catch_up', catchUp, 'Slots that nobody could start within a minute.'),
    paused: row('paused', paused, 'It starts nothing by itself.'),
  };

  function read() {
    const shown = cron.value.trim();
    const sentence = whenText({ cron: shown });
    setText(reading, sentence === shown ? '' : `${sentence}, ${zone.value.trim() || 'UTC'}`);
  }
  cron.addEventListener('input', read);
  zone.addEventListener('input', read);
  read();

  const slots = Object.fromEntries(Object.entries(rows).map(([name, { slot }]) => [name, slot]));
  /** @type {(name: string, message: string) => ErrorSlot} */
  const setError = (name, message) => {
    slots[name].set(message);
    return slots[name];
  };

  return {
    element: h('div', { class: 'fields' },
      Object.entries(rows).filter(([name]) => name !== 'id' || schedule === null)
        .map(([, { element }]) => element)),
    id: () => id.value.trim(),
    /** The members of the request. */
    written: () => JSON.stringify({
      cron: cron.value.trim(), time_zone: zone.value.trim() || 'UTC', overlap: overlap.value,
      catch_up: catchUp.value, paused: paused.checked,
    }).slice(1, -1),
    clearErrors: () => Object.values(slots).forEach((slot) => slot.set('')),
    /** @type {(name: string, message: string) => void} */
    refuse: (name, message) => setError(name, message).focus(),
    /**
     * Shows the violations that are about these fields.
     * @param {unknown} thrown
     * @returns {[unknown, ErrorSlot[]]} what is left, and the fields that say something
     */
    take(thrown) {
      const error = thrown instanceof InvalidForm ? thrown : asApiError(thrown);
      const isOwn = (/** @type {Api.Violation} */ { path }) => Object.hasOwn(slots, path.slice(1));
      const own = error.violations.filter(isOwn)
        .map(({ path, message }) => setError(path.slice(1), message));
      error.violations = error.violations.filter((one) => !isOwn(one));
      return [error, own];
    },
  };
}

/**
 * @param {[string, string][]} choices
 * @param {string | undefined} value
 */
function select(choices, value) {
  const element = h('select', null, choices.map(([name, label]) => h('option', { value: name }, label)));
  element.value = value ?? choices[0][0];
  return element;
}

/** The time zones that the browser knows. */
function timeZones() {
  // TypeScript 4.8 does not know this function yet.
  /** @type {any} */
  const intl = Intl;
  return /** @type {string[]} */ (intl.supportedValuesOf?.('timeZone') ?? []);
}
