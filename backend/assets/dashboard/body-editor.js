// The start body of one worker type, entered in a form; with a second mode in which it is JSON.

import { asApiError } from './api.js';
import { h, setAttribute, show } from './dom.js';
import { writeJson } from './exact.js';
import { exampleOf } from './schema.js';
import { InvalidForm } from './schema-errors.js';
import { schemaForm } from './schema-form.js';
import {
  bodyOf, checkUnchanged, joinParts, parseBody, partOf, sharedSchemas, splitBody,
} from './start-body.js';

/** @typedef {import('./schema-errors.js').ErrorSlot} ErrorSlot */
/** @typedef {import('./schema-errors.js').FormViolation} FormViolation */
/** @typedef {import('./start-body.js').Part} Part */
/** @typedef {Record<Part, import('./schema-form.js').SchemaForm>} Forms */

/** @type {Part[]} */
const PARTS = ['id', 'how', 'when', 'parameters'];

/** @typedef {{ id?: unknown, execution?: unknown, parameters?: unknown }} Values */

/**
 * @param {Api.WorkerType} type
 * @param {OpenApi} openApi
 * @param {Values} values
 * @returns {Forms}
 */
function makeForms(type, openApi, values) {
  const shared = sharedSchemas(openApi);
  return {
    id: schemaForm(shared.id, { value: values.id, root: openApi }),
    how: schemaForm(shared.how, { value: values.execution, base: '/execution', root: openApi }),
    when: schemaForm(shared.when, { value: values.execution, base: '/execution', root: openApi }),
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

  const parts = {
    id: read('id'), how: read('how'), when: read('when'), parameters: read('parameters'),
  };
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

/** @typedef {ReturnType<typeof bodyEditor>} BodyEditor */

/**
 * @param {Api.WorkerType} type
 * @param {OpenApi} openApi
 * @param {Values} [values] to begin with
 * @param {{ hasId?: boolean, base?: string }} [options] `hasId`: whether the body may name the id of
 *   the operation; `base`: the path of the body in what is sent
 */
export function bodyEditor(type, openApi, values = {}, options = {}) {
  const { hasId = true, base = '' } = options;
  let forms = makeForms(type, openApi, values);
  let isJson = false;
  const modes = modeSwitch(switchMode);
  const area = h('textarea', {
    class: 'code', rows: 16, spellcheck: 'false', 'aria-label': 'The request as JSON',
  });
  const fields = h('div', { class: 'form-body' });
  const problem = h('div', { class: 'problem', hidden: true, role: 'alert' });
  const example = exampleOf(type.request_schema);
  const fill = example && h('button', {
    type: 'button', class: 'button small', onclick: fillIn,
  }, 'Fill in an example');
  const tools = h('div', { class: 'form-tools' }, fill, modes.element);
  setValues(values);

  /** Sets the parameters of the example. How to run it stays as it was entered. */
  function fillIn() {
    const { id, execution } = splitBody(isJson ? typedBody() : peekBody(forms));
    setValues({ id, execution, parameters: example });
  }

  /** The JSON that was typed, as far as it can be read. */
  function typedBody() {
    try {
      return parseBody(area.value).value;
    } catch {
      return {};
    }
  }

  /**
   * Fills the form in. What it has no place for is shown as JSON, so that nothing gets lost.
   * @param {Values} next
   */
  function setValues(next) {
    forms = makeForms(type, openApi, next);
    isJson = false;
    problem.hidden = true;
    const body = bodyOf(next);
    try {
      checkUnchanged(body, [], peekBody(forms));
    } catch {
      isJson = true;
      area.value = writeJson(body, 2);
    }
    showMode();
  }

  function showMode() {
    modes.set(isJson);
    show(fields, isJson ? area : [
      forms.parameters.element,
      branch('How to run it', hasId && forms.id.element, forms.how.element),
      branch('When and in which order', forms.when.element),
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
    checkUnchanged(value, duplicates, peekBody(next));
    return next;
  }

  /**
   * The body to send. JSON is sent as it was typed.
   * @throws {InvalidForm}
   */
  function text() {
    if (!isJson) return writeJson(readForms(forms));
    parseBody(area.value);
    return area.value;
  }

  /**
   * Shows what is wrong: at its fields, and otherwise below them.
   * @param {unknown} error
   * @param {ErrorSlot[]} [others] slots outside of the body that show something, too
   */
  function complain(error, others = []) {
    const { message, violations: all } = error instanceof InvalidForm ? error : asApiError(error);
    const violations = all.map((one) => (one.path.startsWith(`${base}/`)
      ? { ...one, path: one.path.slice(base.length) } : one));
    const { unplaced, slots } = isJson
      ? { unplaced: violations, slots: [] }
      : showViolations(forms, violations);

    const isSaid = violations.length > 0 || others.length > 0;
    const lines = isSaid ? unplaced.map(violationLine) : [message];
    problem.hidden = lines.length === 0;
    show(problem, lines.map((line) => h('p', null, line)));

    const first = firstOnPage([...slots, ...others]);
    if (first) goTo(first);
    else if (isJson && violations.length > 0) area.focus();
  }

  return { tools, fields, problem, text, clearErrors, complain };
}

/**
 * Fields that few people need.
 * @param {string} label
 * @param {...Child} children
 */
const branch = (label, ...children) =>
  h('details', { class: 'branch options' }, h('summary', null, label), children);

/**
 * The body that the forms make, as far as they can be read.
 * @param {Forms} forms
 */
const peekBody = (forms) => ({
  ...forms.id.peek(), ...forms.parameters.peek(),
  execution: { ...forms.how.peek(), ...forms.when.peek() },
});

/** @param {Api.Violation} violation */
const violationLine = ({ path, message }) => (path ? `${path}: ${message}` : message);

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
