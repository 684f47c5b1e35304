// Chooses the control for a schema, and builds those that have fields of their own.

import { childPath, ownMember } from './exact.js';
import { h, setText, show } from './dom.js';
import {
  choicesOf, fitsVariant, orderedNames, patternAdvice, rangeHint, tagOf, valueLabel, variantLabel,
  variantsOf, withoutNull,
} from './schema.js';
import { listControl, mapControl } from './schema-entries.js';
import {
  booleanInput, isMoment, jsonInput, numberInput, selectInput, selectOf, textInput, timeInput,
} from './schema-inputs.js';
import { fieldRow, newId } from './schema-row.js';
import { objectValue } from './schema-values.js';

// Deeper values are entered as JSON: a schema may contain itself.
const MAX_DEPTH = 8;

/** @typedef {import('./schema-inputs.js').Control} Control */

/**
 * What a field is made from.
 * @typedef {object} FieldSpec
 * @property {Schema | boolean | undefined} schema
 * @property {string} path
 * @property {unknown} value the initial one; undefined when it is absent
 * @property {boolean} isRequired
 * @property {boolean} [isUnmarked] is required, but not marked so
 * @property {number} depth
 */

/**
 * @typedef {{ element: HTMLElement, read: () => unknown, rename: (name: string) => void }} Field
 */

/**
 * What the fields of one form share.
 * @typedef {object} FormContext
 * @property {unknown} root the document that references point into
 * @property {import('./schema-errors.js').FieldErrors} errors
 * @property {(name: string, spec: FieldSpec) => Field} field makes a labelled field
 */

/**
 * @param {FormContext} form
 * @param {string} name
 * @param {FieldSpec} spec
 * @returns {Field}
 */
export function labelledField(form, name, spec) {
  const schema = withoutNull(spec.schema, form.root);
  const control = makeControl(form, spec);
  const row = fieldRow(name, spec.path, control, {
    isMarkedRequired: spec.isRequired && !spec.isUnmarked && !control.isCheckbox
      && schema.default === undefined,
    description: schema.description,
    advice: patternAdvice(schema),
  });
  form.errors.addSlot(spec.path, row.slot);
  return { element: row.element, read: control.read, rename: row.rename };
}

/**
 * @param {FormContext} form
 * @param {FieldSpec} spec
 * @returns {Control}
 */
export function makeControl(form, spec) {
  const schema = withoutNull(spec.schema, form.root);
  const value = spec.value ?? schema.default ?? undefined;
  const { isRequired, path } = spec;
  const withValue = { ...spec, value };

  if ('const' in schema) {
    return { element: h('code', null, valueLabel(schema.const)), read: () => schema.const };
  }
  const choices = choicesOf(schema, form.root);
  if (choices) return selectInput(choices, value, isRequired);

  const refuse = (/** @type {string} */ message) => form.errors.refuse(path, message);
  const asJson = () => jsonInput(value, refuse);
  if (spec.depth > MAX_DEPTH) return asJson();
  if (schema.oneOf || schema.anyOf) return group(variantControl(form, schema, withValue));

  switch (schema.type) {
    case 'string':
      return schema.format === 'date-time' && isMoment(value)
        ? { ...timeInput(value, refuse), hint: 'in your time zone' }
        : textInput(schema, value);
    case 'integer':
    case 'number':
      return { ...numberInput(schema, value), hint: rangeHint(schema) };
    case 'boolean':
      return booleanInput(schema, value, isRequired);
    case 'array':
      return isSchema(schema.items) ? group(listControl(form, schema, withValue)) : asJson();
    case 'object':
      if (hasProperties(schema)) return group(objectControl(form, schema, withValue));
      if (isSchema(schema.additionalProperties)) return group(mapControl(form, schema, withValue));
      return asJson();
    default:
      return asJson();
  }
}

/**
 * @param {Control} control
 * @returns {Control}
 */
const group = (control) => ({ ...control, isGroup: true });

/** @param {Schema | boolean | undefined} schema */
const isSchema = (schema) => typeof schema === 'object' && schema !== null;

/** @param {Schema} schema */
const hasProperties = ({ properties }) =>
  properties !== undefined && Object.keys(properties).length > 0;

/**
 * The fields of an object.
 * @param {FormContext} form
 * @param {Schema} schema
 * @param {FieldSpec} spec
 * @param {Record<string, unknown>} fixed members that get no field
 * @returns {Control}
 */
export function objectFields(form, schema, { path, value, depth }, fixed = {}) {
  const fields = orderedNames(schema)
    .filter((name) => !Object.hasOwn(fixed, name))
    .map((name) => ({
      name,
      field: form.field(name, {
        schema: schema.properties?.[name],
        path: childPath(path, name),
        value: ownMember(value, name),
        isRequired: (schema.required ?? []).includes(name),
        depth: depth + 1,
      }),
    }));

  return {
    element: h('div', { class: 'fields' }, fields.map(({ field }) => field.element)),
    read: () => objectValue(fields.map(({ name, field }) => [name, field.read()]), fixed),
  };
}

/**
 * An object; when it may be left out, a checkbox says whether it is there.
 * @param {FormContext} form
 * @param {Schema} schema
 * @param {FieldSpec} spec
 * @returns {Control}
 */
function objectControl(form, schema, spec) {
  if (spec.isRequired) return objectFields(form, schema, spec);

  const checkbox = h('input', {
    type: 'checkbox', id: newId(), checked: spec.value !== undefined,
  });
  const box = h('div');
  /** @type {Control | null} */
  let fields = null;

  function toggle() {
    form.errors.forgetInside(spec.path);
    fields = checkbox.checked ? objectFields(form, schema, spec) : null;
    show(box, fields?.element);
  }

  checkbox.addEventListener('change', toggle);
  toggle();
  const label = h('label', { class: 'check', for: checkbox.id }, checkbox, 'Set');
  return { element: h('div', null, label, box), read: () => fields?.read() };
}

/**
 * A choice between several schemas.
 * @param {FormContext} form
 * @param {Schema} schema
 * @param {FieldSpec} spec
 * @returns {Control}
 */
function variantControl(form, schema, spec) {
  const { root } = form;
  const variants = variantsOf(schema, root);
  const labels = variants.map((variant, at) => variantLabel(variant, root, at));
  const initial = spec.value === undefined
    ? -1
    : variants.findIndex((variant) => fitsVariant(variant, spec.value, root));
  // Nothing is chosen for the user: the first variant may be "drop the row".
  const select = selectOf(labels, initial, spec.isRequired, { 'aria-label': 'Kind' });
  const note = h('p', { class: 'field-help' });
  const box = h('div', { class: 'variant' });
  /** @type {Control | null} */
  let control = null;

  /** @param {unknown} value */
  function showVariant(value) {
    form.errors.forgetInside(spec.path);
    const variant = select.value === '' ? undefined : variants[Number(select.value)];
    setText(note, variant?.description);
    note.hidden = note.textContent === '';

    control = variant ? controlOfVariant(form, variant, { ...spec, value }) : null;
    show(box, control?.isCheckbox
      ? h('label', { class: 'check' }, control.element, 'Yes')
      : control?.element);
  }

  select.addEventListener('change', () => showVariant(undefined));
  showVariant(initial >= 0 ? spec.value : undefined);
  return {
    input: select, element: h('div', null, select, note, box), read: () => control?.read(),
  };
}

/**
 * @param {FormContext} form
 * @param {Schema} variant
 * @param {FieldSpec} spec
 * @returns {Control}
 */
function controlOfVariant(form, variant, spec) {
  if ('const' in variant) return { element: h('span'), read: () => variant.const };
  if (variant.type === 'object' && variant.properties) {
    const tag = tagOf(variant, form.root);
    return objectFields(form, variant, spec, tag ? { [tag.name]: tag.value } : {});
  }
  return makeControl(form, { ...spec, schema: variant, isRequired: true, depth: spec.depth + 1 });
}
