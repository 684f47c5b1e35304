// Fields with a changing number of entries: lists, and maps from names to values.

import { jsonType } from './exact.js';
import { h, setAttribute } from './dom.js';
import { errorText, errorSlot } from './schema-row.js';
import { listValue, mapValue } from './schema-values.js';

/** @typedef {import('./schema-inputs.js').Control} Control */
/** @typedef {import('./schema-fields.js').FormContext} FormContext */
/** @typedef {import('./schema-fields.js').FieldSpec} FieldSpec */

/**
 * A value of an entry: always required, but not marked so.
 * @param {FieldSpec} around
 * @param {Schema | boolean | undefined} schema
 * @param {string} path
 * @param {unknown} value
 * @returns {FieldSpec}
 */
function entrySpec(around, schema, path, value) {
  return {
    schema, path, value: value ?? undefined, isRequired: true, isUnmarked: true,
    depth: around.depth + 1,
  };
}

/**
 * @param {() => void} onclick
 * @param {Record<string, string>} attributes
 */
const removeButton = (onclick, attributes = {}) =>
  h('button', { type: 'button', class: 'button small', onclick, ...attributes }, 'Remove');

/** @param {() => void} onclick */
const addButton = (onclick) =>
  h('button', { type: 'button', class: 'button small', onclick }, 'Add entry');

/**
 * @param {FormContext} form
 * @param {Schema} schema
 * @param {FieldSpec} spec
 * @returns {Control}
 */
export function listControl(form, schema, spec) {
  const { path, value } = spec;
  const list = h('div', { class: 'items' });
  /** @type {{ key: string, field: import('./schema-fields.js').Field, remove: HTMLElement }[]} */
  let entries = [];
  let made = 0;
  form.errors.setEntryKeys(path, (part) => entries[Number(part)]?.key);

  function renumber() {
    entries.forEach(({ field, remove }, at) => {
      field.rename(`entry ${at + 1}`);
      setAttribute(remove, 'aria-label', `Remove entry ${at + 1}`);
    });
  }

  /** @param {unknown} item */
  function addEntry(item) {
    made += 1;
    const key = `${path}/\n${made}`;
    const field = form.field('entry', entrySpec(spec, schema.items, key, item));
    const remove = removeButton(() => {
      entries = entries.filter((entry) => entry.key !== key);
      element.remove();
      form.errors.forget(key);
      renumber();
      add.focus();
    });
    const element = h('div', { class: 'item' }, field.element, remove);
    entries.push({ key, field, remove });
    list.append(element);
    renumber();
    return element;
  }

  if (Array.isArray(value)) value.forEach(addEntry);
  const add = addButton(() => {
    const input = addEntry(undefined).querySelector('input,select,textarea');
    if (input instanceof HTMLElement) input.focus();
  });
  return {
    element: h('div', null, list, add),
    read: () => listValue(entries.map(({ field }) => field.read()), value === undefined),
  };
}

/**
 * Any names, each with a value of the same schema: {"age": "median", …}.
 * @param {FormContext} form
 * @param {Schema} schema
 * @param {FieldSpec} spec
 * @returns {Control}
 */
export function mapControl(form, schema, spec) {
  const { path, value } = spec;
  const list = h('div', { class: 'items' });
  /**
   * @typedef {{ key: string, nameKey: string, name: HTMLInputElement, read: () => unknown }} Entry
   */
  /** @type {Entry[]} */
  let entries = [];
  let made = 0;
  form.errors.setEntryKeys(path, (part) => entries.find(({ name }) => name.value === part)?.key);

  /**
   * @param {string} called
   * @param {unknown} item
   */
  function addEntry(called, item) {
    made += 1;
    const key = `${path}/\n${made}`;
    // Beside the entry's path, not inside it: the fields inside are made again when another shape
    // is chosen.
    const nameKey = `${path}/\nname ${made}`;
    const field = form.field('value', entrySpec(spec, mapSchema(schema), key, item));
    const { cell, name } = nameCell(form, nameKey, called);
    const remove = removeButton(() => {
      entries = entries.filter((entry) => entry.key !== key);
      element.remove();
      form.errors.forget(key);
      form.errors.forget(nameKey);
      add.focus();
    }, { 'aria-label': 'Remove entry' });

    const element = h('div', { class: 'item named' }, cell, field.element, remove);
    entries.push({ key, nameKey, name, read: field.read });
    list.append(element);
    return name;
  }

  if (jsonType(value) === 'object') {
    const members = Object.entries(/** @type {object} */ (value));
    members.forEach(([called, item]) => addEntry(called, item));
  }
  const add = addButton(() => addEntry('', undefined).focus());

  function read() {
    const entered = entries.map((entry) => ({ name: entry.name.value, value: entry.read() }));
    return mapValue(entered, value === undefined, (at, message) =>
      form.errors.refuse(entries[at].nameKey, message));
  }

  return { element: h('div', null, list, add), read };
}

/** @param {Schema} schema */
const mapSchema = ({ additionalProperties }) => additionalProperties;

/**
 * @param {FormContext} form
 * @param {string} key
 * @param {string} called
 */
function nameCell(form, key, called) {
  const error = errorText();
  const name = h('input', {
    type: 'text', autocomplete: 'off', spellcheck: 'false', placeholder: 'name', value: called,
    'aria-label': 'Name', 'aria-describedby': error.id,
  });
  const cell = h('div', { class: 'field' }, name, error);
  form.errors.addSlot(key, errorSlot(cell, error, name));
  return { cell, name };
}
