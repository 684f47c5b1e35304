// What a JSON Schema (2020-12) says about a field: no elements here.

import { Exact, isEqual, jsonType, ownMember, unescapePart, writeJson } from './exact.js';
import { number, title } from './format.js';

// References that lead to references: a schema may refer to itself.
const MAX_STEPS = 20;

/**
 * A schema with the keywords that stand beside its reference. Those win, as they are closer to the
 * use.
 * @param {Schema | undefined} target
 * @param {Schema} beside
 * @returns {Schema}
 */
function merge(target, beside) {
  const merged = { ...target, ...beside };
  if (beside.description && target?.description) {
    merged.hiddenDescription = target.hiddenDescription ?? target.description;
  }
  return merged;
}

/**
 * The schema at a reference such as `#/$defs/Time`.
 * @param {string} reference
 * @param {unknown} root the document that it refers to
 */
export function schemaAt(reference, root) {
  return reference.slice(2).split('/')
    .reduce((at, part) => ownMember(at, unescapePart(part)), root);
}

/**
 * The schema behind references and behind `allOf` with one member.
 * @param {Schema | boolean | undefined} schema
 * @param {unknown} root the document that references point into
 * @returns {Schema}
 */
export function resolveSchema(schema, root) {
  let found = typeof schema === 'object' ? schema : {};
  for (let step = 0; step < MAX_STEPS; step += 1) {
    if (typeof found.$ref === 'string' && found.$ref.startsWith('#/')) {
      const { $ref: reference, ...beside } = found;
      found = merge(/** @type {Schema | undefined} */ (schemaAt(reference, root)), beside);
    } else if (Array.isArray(found.allOf) && found.allOf.length === 1) {
      const { allOf: [only], ...beside } = found;
      found = merge(only, beside);
    } else {
      break;
    }
  }
  return found;
}

/** @param {Schema} schema */
const allowsOnlyNull = (schema) =>
  schema.type === 'null' || ('const' in schema && schema.const === null);

/**
 * The resolved schema without the possibility of null: an absent field means the same.
 * @param {Schema | boolean | undefined} schema
 * @param {unknown} root
 * @returns {Schema}
 */
export function withoutNull(schema, root) {
  const found = resolveSchema(schema, root);
  const keyword = found.anyOf ? 'anyOf' : found.oneOf ? 'oneOf' : null;
  if (keyword) {
    const options = (found[keyword] ?? []).map((option) => resolveSchema(option, root));
    const rest = options.filter((option) => !allowsOnlyNull(option));
    if (rest.length < options.length) {
      const { [keyword]: _, ...beside } = found;
      if (rest.length === 1) return withoutNull(merge(rest[0], beside), root);
      return { ...found, [keyword]: rest };
    }
  }

  if (!Array.isArray(found.type)) return found;
  const types = found.type.filter((type) => type !== 'null');
  const single = { ...found, type: types.length === 1 ? types[0] : types };
  if (found.enum) single.enum = found.enum.filter((value) => value !== null);
  return single;
}

/** @typedef {{ value: unknown, label: string, note?: string }} Choice */

/**
 * The values that are allowed, when only certain ones are.
 * @param {Schema} schema
 * @param {unknown} root
 * @returns {Choice[] | null}
 */
export function choicesOf(schema, root) {
  if (Array.isArray(schema.enum)) {
    return schema.enum.map((value) => ({ value, label: valueLabel(value) }));
  }

  const options = (schema.oneOf ?? schema.anyOf)?.map((option) => resolveSchema(option, root));
  if (!options?.every((option) => 'const' in option || Array.isArray(option.enum))) return null;
  return options.flatMap((option) =>
    ('const' in option ? [option.const] : option.enum ?? []).map((value) => ({
      value, label: option.title ?? valueLabel(value), note: option.description,
    })));
}

/**
 * @param {unknown} value
 * @returns {string}
 */
export const valueLabel = (value) => (typeof value === 'string' ? value : writeJson(value));

/**
 * The options of a choice between schemas. Options that are choices themselves are offered side by
 * side.
 * @param {Schema} schema
 * @param {unknown} root
 * @returns {Schema[]}
 */
export function variantsOf(schema, root) {
  return (schema.oneOf ?? schema.anyOf ?? []).flatMap((option) => {
    const found = withoutNull(option, root);
    const isChoice = !found.properties && !choicesOf(found, root) && (found.oneOf ?? found.anyOf);
    return isChoice ? variantsOf(found, root) : [found];
  });
}

/**
 * The required property that has one fixed value and so tells an option from the others.
 * @param {Schema} option
 * @param {unknown} root
 * @returns {{ name: string, value: unknown } | null}
 */
export function tagOf(option, root) {
  for (const [name, property] of Object.entries(option.properties ?? {})) {
    const found = resolveSchema(property, root);
    const fixed = 'const' in found ? [found.const] : found.enum ?? [];
    if (fixed.length === 1 && option.required?.includes(name)) return { name, value: fixed[0] };
  }
  return null;
}

/**
 * The first three of some words.
 * @param {string[]} words
 */
const firstThree = (words) => words.slice(0, 3).join(', ');

/**
 * What an option is called: its tag, its values, its title, its properties or its type.
 * @param {Schema} option
 * @param {unknown} root
 * @param {number} at its place among the options
 * @returns {string}
 */
export function variantLabel(option, root, at) {
  const tag = tagOf(option, root);
  if (tag) return title(tag.value);

  if (Array.isArray(option.enum)) {
    const names = firstThree(option.enum.map(valueLabel));
    return `By name: ${names}${option.enum.length > 3 ? ', …' : ''}`;
  }
  if (option.title) return option.title;

  const type = Array.isArray(option.type) ? option.type.join(' or ') : option.type;
  const isAnyRequired = option.required !== undefined && option.required.length > 0;
  const names = (isAnyRequired ? option.required : Object.keys(option.properties ?? {})) ?? [];
  if (type === 'object' && names.length > 0) {
    return `${title(firstThree(names))}${names.length > 3 ? ', …' : ''}`;
  }
  if ('const' in option) return valueLabel(option.const);
  return type ? title(type) : `Form ${at + 1}`;
}

/**
 * Whether a value belongs to an option.
 * @param {Schema} option
 * @param {unknown} value
 * @param {unknown} root
 */
export function fitsVariant(option, value, root) {
  const tag = tagOf(option, root);
  if (tag) return isEqual(ownMember(value, tag.name), tag.value);
  if ('const' in option) return isEqual(value, option.const);
  if (Array.isArray(option.enum)) return option.enum.some((one) => isEqual(value, one));

  const type = jsonType(value);
  if (option.type === 'integer') return type === 'number' && Number.isInteger(Number(value));
  const { properties } = option;
  if (type === 'object' && properties) {
    return Object.keys(/** @type {object} */ (value)).every((name) => name in properties);
  }
  return option.type === undefined || option.type === type;
}

/**
 * A limit to its last digit: 18,446,744,073,709,551,615.
 * @param {SchemaNumber} limit
 */
function limitLabel(limit) {
  if (!(limit instanceof Exact)) return number(limit);
  return String(limit).replace(/\B(?=(\d{3})+$)/g, ',');
}

/**
 * Which numbers are allowed, in words.
 * @param {Schema} schema
 */
export function rangeHint(schema) {
  const { minimum, maximum, exclusiveMinimum, exclusiveMaximum } = schema;
  const low = minimum ?? exclusiveMinimum;
  const high = maximum ?? exclusiveMaximum;
  const isAbove = exclusiveMinimum !== undefined;
  const isBelow = exclusiveMaximum !== undefined;

  if (low !== undefined && high !== undefined) {
    const from = isAbove ? `more than ${limitLabel(low)}` : `from ${limitLabel(low)}`;
    const to = isBelow ? `and less than ${limitLabel(high)}` : `up to ${limitLabel(high)}`;
    return `${from} ${to}`;
  }
  if (low !== undefined) {
    // Nobody expects a negative count.
    if (low === 0 && schema.type === 'integer') return '';
    return isAbove ? `more than ${limitLabel(low)}` : `at least ${limitLabel(low)}`;
  }
  if (high === undefined) return '';
  return isBelow ? `less than ${limitLabel(high)}` : `at most ${limitLabel(high)}`;
}

/**
 * The names of an object's fields in the order in which the form shows them: the author's.
 *
 * Properties that come sorted by name have lost it: a program of an older release has published
 * them. Then required ones stand first, and a start before its end.
 * @param {Schema} schema
 */
export function orderedNames(schema) {
  const all = Object.keys(schema.properties ?? {});
  const isSorted = all.every((name, at) => at === 0 || all[at - 1] <= name);
  if (!isSorted) return all;

  const required = (schema.required ?? []).filter((name) => all.includes(name));
  const rest = all.filter((name) => !required.includes(name));
  for (const name of [...rest]) {
    const start = rest.indexOf(name.replace(/(?<![a-z])end(?![a-z])/i, 'start'));
    const end = rest.indexOf(name);
    if (start > end) rest.splice(end, 0, ...rest.splice(start, 1));
  }
  return [...new Set([...required, ...rest])];
}

/**
 * An example of a whole value, if its author gave one.
 * @param {Schema} schema
 */
export function exampleOf({ examples }) {
  return Array.isArray(examples) && jsonType(examples[0]) === 'object'
    ? /** @type {Record<string, unknown>} */ (examples[0])
    : null;
}

/**
 * Advice for a text that does not match its pattern. Empty when the field's own description says
 * enough.
 * @param {Schema} schema
 */
export function patternAdvice({ pattern, hiddenDescription, examples = [] }) {
  if (!pattern) return '';
  const shown = examples.slice(0, 2).map(valueLabel).join(' or ');
  return [hiddenDescription, shown && `for example ${shown}`]
    .filter(Boolean).join('; ').replaceAll('`', '');
}
