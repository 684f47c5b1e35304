// A form from a JSON Schema (2020-12), as worker types publish it. Values that the form cannot
// express are entered as JSON.

import { FieldErrors } from './schema-errors.js';
import { labelledField, makeControl, objectFields } from './schema-fields.js';
import { withoutNull } from './schema.js';

/** @typedef {ReturnType<typeof schemaForm>} SchemaForm */

/**
 * @typedef {object} FormOptions
 * @property {unknown} [value] the initial one
 * @property {string} [base] path of the form's value in what is sent
 * @property {unknown} [root] the document that references point into; the schema itself when absent
 */

/**
 * @param {Schema} schema
 * @param {FormOptions} options
 */
export function schemaForm(schema, options = {}) {
  const { value, base = '', root = schema } = options;
  const errors = new FieldErrors(base);
  /** @type {import('./schema-fields.js').FormContext} */
  const form = { root, errors, field: (name, spec) => labelledField(form, name, spec) };

  const top = withoutNull(schema, root);
  const spec = { schema: top, path: base, value, isRequired: true, depth: 0 };
  const isObject = top.type === 'object' && top.properties !== undefined;
  const hasVariants = top.oneOf !== undefined || top.anyOf !== undefined;
  const control = isObject && !hasVariants
    ? objectFields(form, top, spec)
    : makeControl(form, spec);
  const readValue = () => /** @type {Record<string, any>} */ (control.read() ?? {});

  return {
    element: control.element,
    /** The value. Throws `InvalidForm` when something cannot be sent. */
    read: () => errors.collect(readValue),
    /** The parts that can be read, even if others cannot. */
    peek: readValue,
    clearErrors: () => errors.clear(),
    /** @param {Api.Violation[]} violations */
    showErrors: (violations) => errors.show(violations),
  };
}
