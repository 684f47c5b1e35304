// What a JSON Schema of the API document says, as text, and an example value. No elements here.

import { ownMember, writeJson } from '../dashboard/exact.js';
import { schemaAt } from '../dashboard/schema.js';

// Schemas may contain themselves.
export const MAX_DEPTH = 12;

/** @typedef {Schema | boolean | undefined} AnySchema */

/**
 * The schema behind its references, with what stands beside them.
 * @param {unknown} document
 * @param {AnySchema} schema
 * @returns {AnySchema}
 */
export function resolve(document, schema) {
  const seen = new Set();
  let found = schema;
  while (typeof found === 'object' && found.$ref !== undefined && !seen.has(found.$ref)) {
    seen.add(found.$ref);
    const { $ref: reference, ...beside } = found;
    const target = schemaAt(reference, document);
    found = target && typeof target === 'object'
      ? { .../** @type {Schema} */ (target), ...beside }
      : /** @type {AnySchema} */ (target);
  }
  return found;
}

/**
 * @param {AnySchema} schema a resolved one
 * @returns {string}
 */
export function typeLabel(schema) {
  if (schema === false) return 'nothing';
  if (schema === true || schema === undefined) return 'anything';
  if (schema.const !== undefined) return writeJson(schema.const);
  if (schema.enum) return schema.enum.map((value) => writeJson(value)).join(' | ');
  if (schema.type) {
    const type = [schema.type].flat().join(' | ');
    return schema.format ? `${type} (${schema.format})` : type;
  }
  return schema.oneOf || schema.anyOf ? 'one of' : 'anything';
}

/** @type {Record<string, string>} */
const LIMITS = {
  minimum: '≥', maximum: '≤', exclusiveMinimum: '>', exclusiveMaximum: '<',
  minItems: 'items ≥', maxItems: 'items ≤', minLength: 'length ≥', maxLength: 'length ≤',
  pattern: 'matches',
};

/** @param {Schema} schema */
export function limitsLabel(schema) {
  const found = Object.entries(LIMITS)
    .map(([keyword, label]) => ({ label, value: ownMember(schema, keyword) }))
    .filter(({ value }) => value !== undefined)
    .map(({ label, value }) => `${label} ${value}`);
  if (schema.default !== undefined) found.push(`default ${writeJson(schema.default)}`);
  return found.join(', ');
}

/**
 * Its own example when it has one, otherwise the least that the schema asks for.
 * @param {unknown} document
 * @param {AnySchema} schema
 * @param {number} depth
 * @returns {unknown}
 */
export function example(document, schema, depth = 0) {
  const found = resolve(document, schema);
  if (typeof found !== 'object' || depth > MAX_DEPTH) return null;
  if (found.examples && found.examples.length > 0) return found.examples[0];
  if (found.default !== undefined) return found.default;
  if (found.const !== undefined) return found.const;
  if (found.enum) return found.enum[0];

  const variants = found.oneOf ?? found.anyOf;
  if (variants && !found.properties) return example(document, variants[0], depth + 1);
  return exampleOfType(document, found, depth);
}

/**
 * @param {unknown} document
 * @param {Schema} schema
 * @param {number} depth
 */
function exampleOfType(document, schema, depth) {
  switch ([schema.type].flat()[0]) {
    case 'object':
      return Object.fromEntries((schema.required ?? []).map((name) =>
        [name, example(document, schema.properties?.[name], depth + 1)]));
    case 'array':
      return schema.minItems ? [example(document, schema.items, depth + 1)] : [];
    case 'integer':
    case 'number':
      return schema.minimum ?? 0;
    case 'boolean':
      return false;
    case 'string':
      return '';
    default:
      return null;
  }
}
