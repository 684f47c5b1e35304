// The form that starts an operation of one worker type, with a second mode in which the body is
// JSON.

import { operationAddress } from './addresses.js';
import { asApiError, exchange } from './api.js';
import { h, setAttribute, setText, show } from './dom.js';
import { readJson, writeJson } from './exact.js';
import { count } from './format.js';
import { InvalidForm } from './schema-errors.js';
import { schemaForm } from './schema-form.js';
import {
  checkUnchanged, joinParts, parseBody, partOf, sharedSchemas, splitBody,
} from './start-body.js';
import { toast } from './toast.js';

/** @typedef {import('./schema-errors.js').ErrorSlot} ErrorSlot */
/** @typedef {import('./schema-errors.js').FormViolation} FormViolation */
/** @typedef {import('./start-body.js').Part} Part */
/** @typedef {Record<Part, import('./schema-form.js').SchemaForm>} Forms */

/** @type {Part[]} */
const PARTS = ['id', 'execution', 'parameters'];

/**
 * @param {Api.WorkerType} type
 * @param {OpenApi} openApi
 * @param {{ [part in Part]?: unknown }} values
 * @returns {Forms}
 */
function makeForms(type, openApi, values = {}) {
  const shared = sharedSchemas(openApi);
  return {
    id: schemaForm(shared.id, { value: values.id, root: openApi }),
    execution: schemaForm(shared.execution,
      { value: values.execution, base: '/execution', root: openApi }),
    parameters: schemaForm(type.request_schema, { value: values.parameters }),
  };
}

/**
 * The body that the forms make.
 * @param {Forms} forms
 * @throws {InvalidForm} with the violations of all forms
 */
function readForms(forms) {
  /** @type {FormViolation[]} */
  const violations = [];
  const read = (/** @type {Part} */ part) => {
    try {
      return forms[part].read();
    } catch (error) {
      if (!(error instanceof InvalidForm)) throw error;
      violations.push(...error.violations);
      return {};
    }
  };

  const parts = { id: read('id'), execution: read('execution'), parameters: read('parameters') };
  if (violations.length > 0) throw new InvalidForm(violations);
  return joinParts(parts);
}

/**
 * Shows violations at their fields.
 * @param {Forms} forms
 * @param {FormViolation[]} violations
 */
function showViolations(forms, violations) {
  /** @type {ErrorSlot[]} */
  const slots = [];
  /** @type {Api.Violation[]} */
  let unplaced = [];
  for (const violation of violations) {
    if (violation.slot) {
      violation.slot.set(violation.message);
      slots.push(violation.slot);
    } else {
      unplaced.push(violation);
    }
  }

  for (const part of PARTS) {
    const others = unplaced.filter(({ path }) => partOf(path) !== part);
    const shown = forms[part].showErrors(unplaced.filter(({ path }) => partOf(path) === part));
    unplaced = [...others, ...shown.unplaced];
    slots.push(...shown.slots);
  }
  return { unplaced, slots };
}

/**
 * The slot that stands first on the page.
 * @param {ErrorSlot[]} slots
 * @returns {ErrorSlot | undefined}
 */
function firstOnPage(slots) {
  const follows = Node.DOCUMENT_POSITION_FOLLOWING;
  return [...slots].sort((a, b) =>
    (a.element.compareDocumentPosition(b.element) & follows ? -1 : 1))[0];
}

/**
 * Opens everything that hides a slot, and goes there.
 * @param {ErrorSlot} slot
 */
function goTo(slot) {
  let details = slot.element.closest('details');
  while (details) {
    details.open = true;
    details = details.parentElement?.closest('details') ?? null;
  }
  slot.focus();
}

/** @typedef {ReturnType<typeof startForm>} StartForm */

/**
 * @param {Api.WorkerType} type
 * @param {OpenApi} openApi
 * @param {AbortSignal} signal
 */
export function startForm(type, openApi, signal) {
  let forms = makeForms(type, openApi);
  let isJson = false;
  const modes = modeSwitch(switchMode);
  const area = h('textarea', {
    class: 'code', rows: 16, spellcheck: 'false', 'aria-label': 'The request as JSON',
  });
  const fields = h('div', { class: 'form-body' });
  const problem = h('div', { class: 'problem', hidden: true, role: 'alert' });
  const submit = h('button', { type: 'submit', class: 'button primary' }, 'Start');
  const workers = workerCount();
  const element = h('form', { class: 'start-form', novalidate: true, onsubmit: send },
    h('div', { class: 'form-head' },
      h('p', { class: 'muted' }, type.description), modes.element),
    workers.note, fields, problem,
    h('div', { class: 'form-end' }, submit, workers.element));
  workers.set(type.workers);
  showMode();

  function showMode() {
    modes.set(isJson);
    show(fields, isJson ? area : [
      forms.parameters.element,
      h('details', { class: 'branch options' },
        h('summary', null, 'How to run it'), forms.id.element, forms.execution.element),
    ]);
  }

  function clearErrors() {
    for (const part of PARTS) forms[part].clearErrors();
    problem.hidden = true;
  }

  /** @param {boolean} toJson */
  function switchMode(toJson) {
    if (toJson === isJson) return;
    for (const part of PARTS) forms[part].clearErrors();
    try {
      if (toJson) area.value = writeJson(readForms(forms), 2);
      else forms = formsFromJson();
    } catch (error) {
      complain(error);
      return;
    }
    isJson = toJson;
    problem.hidden = true;
    showMode();
  }

  function formsFromJson() {
    const { value, duplicates } = parseBody(area.value);
    const next = makeForms(type, openApi, splitBody(value));
    checkUnchanged(value, duplicates, {
      ...next.id.peek(), ...next.parameters.peek(), execution: next.execution.peek(),
    });
    return next;
  }

  /** The body to send. JSON is sent as it was typed. */
  function body() {
    if (!isJson) return writeJson(readForms(forms));
    parseBody(area.value);
    return area.value;
  }

  /** @param {unknown} error */
  function complain(error) {
    const { message, violations } = error instanceof InvalidForm ? error : asApiError(error);
    const { unplaced, slots } = isJson
      ? { unplaced: violations, slots: [] }
      : showViolations(forms, violations);

    const lines = violations.length === 0 ? [message] : unplaced.map(violationLine);
    problem.hidden = lines.length === 0;
    show(problem, lines.map((line) => h('p', null, line)));

    const first = firstOnPage(slots);
    if (first) goTo(first);
    else if (isJson && violations.length > 0) area.focus();
  }

  /** @param {SubmitEvent} event */
  async function send(event) {
    event.preventDefault();
    clearErrors();
    submit.disabled = true;
    setText(submit, 'Starting…');
    try {
      const path = `/api/v1/${encodeURIComponent(type.domain)}/start`;
      const { status, answer } = await exchange('POST', path, { body: body(), read: readJson });
      toastStarted(status, answer);
      // A user who has left meanwhile stays where they are.
      const isHere = !signal.aborted && element.isConnected;
      if (isHere) location.hash = operationAddress(answer.operation_id);
    } catch (error) {
      complain(error);
    } finally {
      submit.disabled = false;
      setText(submit, 'Start');
    }
  }

  return { element, setWorkers: workers.set };
}

/** @param {Api.Violation} violation */
const violationLine = ({ path, message }) => (path ? `${path}: ${message}` : message);

/**
 * @param {number} status
 * @param {Api.Started} started
 */
function toastStarted(status, { operation_id: id, warning }) {
  if (status === 200) toast(`${id} exists already; nothing was started`, 'warn');
  else if (warning) toast(warning, 'warn');
  else toast(`Started ${id}`);
}

/** @param {(toJson: boolean) => void} onSwitch */
function modeSwitch(onSwitch) {
  /** @type {(label: string, toJson: boolean) => HTMLButtonElement} */
  const segment = (label, toJson) => h('button', {
    type: 'button', class: 'segment', onclick: () => onSwitch(toJson),
  }, label);
  const form = segment('Form', false);
  const json = segment('JSON', true);
  return {
    element: h('div', { class: 'segments', role: 'group', 'aria-label': 'How to enter it' },
      form, json),
    /** @param {boolean} isJson */
    set(isJson) {
      setAttribute(form, 'aria-pressed', String(!isJson));
      setAttribute(json, 'aria-pressed', String(isJson));
    },
  };
}

/** How many workers there are, and a note when there is none. */
function workerCount() {
  const note = h('p', { class: 'note' },
    'No worker of this type is here now; the operation will wait until there is one.');
  const element = h('span', { class: 'muted' });
  return {
    note,
    element,
    /** @param {number} workers */
    set(workers) {
      note.hidden = workers > 0;
      const unit = workers === 1 ? 'worker' : 'workers';
      setText(element, workers > 0 ? `${count(workers)} ${unit} of this type` : '');
    },
  };
}
