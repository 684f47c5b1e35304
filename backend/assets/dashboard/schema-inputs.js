// The inputs of a form for values without members.

import { isEqual, readJson, writeJson } from './exact.js';
import { h, setText } from './dom.js';
import { localTime } from './format.js';
import { numberValue, textValue } from './schema-values.js';

/**
 * The part of a field that takes the value.
 * @typedef {object} Control
 * @property {HTMLElement} element
 * @property {HTMLInputElement | HTMLSelectElement | HTMLTextAreaElement} [input] what the label
 *   belongs to
 * @property {() => unknown} read the value, or undefined when nothing was entered
 * @property {boolean} [isCheckbox] stands before its label
 * @property {boolean} [isGroup] has fields of its own
 * @property {string} [hint]
 * @property {HTMLElement} [note] says more about what is chosen; it stands below the description
 */

/**
 * A value that the form cannot express otherwise.
 * @param {unknown} value
 * @param {(message: string) => void} refuse
 * @returns {Control}
 */
export function jsonInput(value, refuse) {
  const input = h('textarea', {
    rows: 4, class: 'code', spellcheck: 'false', placeholder: 'JSON',
    value: value === undefined ? '' : writeJson(value, 2),
  });

  function read() {
    if (input.value.trim() === '') return undefined;
    try {
      return readJson(input.value);
    } catch (error) {
      refuse(`This is not JSON: ${error instanceof Error ? error.message : error}`);
      return input.value;
    }
  }

  return { input, element: input, read };
}

/**
 * @param {import('./schema.js').Choice[]} choices
 * @param {unknown} value
 * @param {boolean} isRequired
 * @returns {Control}
 */
export function selectInput(choices, value, isRequired) {
  const at = value === undefined ? -1 : choices.findIndex((choice) => isEqual(choice.value, value));
  const input = selectOf(choices.map((choice) => choice.label), at, isRequired);
  const note = h('p', { class: 'field-help' });
  const chosen = () => (input.value === '' ? undefined : choices[Number(input.value)]);

  function showNote() {
    setText(note, chosen()?.note);
    note.hidden = note.textContent === '';
  }

  input.addEventListener('change', showNote);
  showNote();
  return { input, element: input, note, read: () => chosen()?.value };
}

/**
 * A list to choose from. Its values are the places of the labels; no choice is the empty text.
 * @param {string[]} labels
 * @param {number} at the chosen place, or -1
 * @param {boolean} isRequired
 * @param {Record<string, string>} attributes
 */
export function selectOf(labels, at, isRequired, attributes = {}) {
  const canBeEmpty = !isRequired || at < 0;
  const select = h('select', attributes,
    canBeEmpty && h('option', { value: '' }, isRequired ? 'Choose…' : 'Not set'),
    labels.map((label, index) => h('option', { value: String(index) }, label)));
  select.value = at >= 0 ? String(at) : '';
  return select;
}

/**
 * @param {Schema} schema
 * @param {unknown} value
 * @returns {Control}
 */
export function numberInput(schema, value) {
  const input = h('input', {
    type: 'text', inputmode: schema.type === 'integer' ? 'numeric' : 'decimal',
    autocomplete: 'off', value: String(value ?? ''),
  });
  return { input, element: input, read: () => numberValue(input.value) };
}

/**
 * @param {Schema} schema
 * @param {unknown} value
 * @param {boolean} isRequired
 * @returns {Control}
 */
export function booleanInput(schema, value, isRequired) {
  const hasDefault = schema.default !== undefined && schema.default !== null;
  // A checkbox cannot say "not set".
  if (!isRequired && !hasDefault && value === undefined) {
    const choices = [{ value: true, label: 'Yes' }, { value: false, label: 'No' }];
    return selectInput(choices, value, false);
  }

  const input = h('input', { type: 'checkbox', checked: value === true });
  return { input, element: input, isCheckbox: true, read: () => input.checked };
}

/**
 * A text. The examples of its author are suggested; any other text can be entered, too.
 * @param {Schema} schema
 * @param {any} value
 * @returns {Control}
 */
export function textInput(schema, value) {
  const { examples } = schema;
  const texts = Array.isArray(examples) ? examples.filter((one) => typeof one === 'string') : [];
  const input = h('input', {
    type: 'text', autocomplete: 'off', spellcheck: 'false', placeholder: texts[0],
    value: value ?? '',
  });
  const control = { input, element: input, read: () => textValue(input.value, value, schema) };
  if (texts.length < 2) return control;

  lists += 1;
  const list = h('datalist', { id: `examples-${lists}` }, texts.map((one) => h('option', { value: one })));
  input.setAttribute('list', list.id);
  return { ...control, element: h('div', null, input, list) };
}

/**
 * A moment, in the time zone of the browser. One that stays as it was is sent as it was written.
 * @param {unknown} value
 * @param {(message: string) => void} refuse
 * @returns {Control}
 */
export function timeInput(value, refuse) {
  const input = h('input', {
    type: 'datetime-local', step: 1, value: typeof value === 'string' ? localTime(value, true) : '',
  });
  const shown = input.value;

  function read() {
    if (input.validity.badInput) refuse('Enter date and time, or nothing');
    if (input.value === '') return undefined;
    return input.value === shown ? value : new Date(input.value).toISOString();
  }

  return { input, element: input, read };
}

/**
 * Whether an initial value can be shown as a moment.
 * @param {unknown} value
 */
export const isMoment = (value) =>
  value === undefined || (typeof value === 'string' && localTime(value) !== '');

let lists = 0;
