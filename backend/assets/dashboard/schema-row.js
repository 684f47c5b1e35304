// A labelled row of a form, with room for an error.

import { h, setAttribute, setText } from './dom.js';
import { fieldTitle } from './format.js';
import { markCode } from './words.js';

/** @typedef {import('./schema-inputs.js').Control} Control */
/** @typedef {import('./schema-errors.js').ErrorSlot} ErrorSlot */

let ids = 0;

/** An id that no other element of the page has. */
export function newId() {
  ids += 1;
  return `f${ids}`;
}

/** Where a field shows its error. */
export const errorText = () => h('p', { class: 'field-error', id: newId(), role: 'alert' });

/**
 * @param {HTMLElement} element
 * @param {HTMLElement} error
 * @param {Control['input']} input
 * @param {{ isEmpty?: () => boolean, advice?: string }} more
 * @returns {ErrorSlot}
 */
export function errorSlot(element, error, input, { isEmpty = () => false, advice = '' } = {}) {
  return {
    element,
    isEmpty,
    advice,
    set(message) {
      setText(error, message);
      element.classList.toggle('wrong', message !== '');
      if (input) setAttribute(input, 'aria-invalid', message !== '' ? 'true' : null);
    },
    focus() {
      const target = input ?? element.querySelector('input,select,textarea,button');
      if (target instanceof HTMLElement) target.focus();
    },
  };
}

/**
 * @typedef {object} RowOptions
 * @property {boolean} isMarkedRequired
 * @property {string} [description]
 * @property {string} advice
 */

/**
 * @param {string} name
 * @param {string} path
 * @param {Control} control
 * @param {RowOptions} options
 */
export function fieldRow(name, path, control, { isMarkedRequired, description, advice }) {
  const { input, isGroup, isCheckbox } = control;
  const error = errorText();
  const help = [description, control.hint].filter(Boolean).join(' · ');
  const note = help ? h('p', { class: 'field-help', id: newId() }, markCode(help)) : null;
  if (input) {
    input.id ||= newId();
    setAttribute(input, 'aria-describedby', [note?.id, error.id].filter(Boolean).join(' '));
  }

  const label = h('span', null, fieldTitle(name));
  const required = isMarkedRequired
    && h('span', { class: 'required', title: 'required' }, ' required');
  const element = h(isGroup ? 'fieldset' : 'div',
    { class: isGroup ? 'field group' : 'field ', 'data-path': path },
    caption(control, label, required),
    isGroup && note,
    !isCheckbox && control.element,
    !isGroup && note,
    control.note,
    error);

  const isEmpty = () => control.read() === undefined;
  const slot = errorSlot(element, error, input, { isEmpty, advice });
  return {
    element, slot, rename: (/** @type {string} */ next) => setText(label, fieldTitle(next)),
  };
}

/**
 * @param {Control} control
 * @param {HTMLElement} label
 * @param {Child} required
 */
function caption({ input, isGroup, isCheckbox }, label, required) {
  if (isGroup) return h('legend', null, label, required);
  if (isCheckbox) return h('label', { class: 'check', for: input?.id }, input, label);
  return h('label', { for: input?.id }, label, required);
}
