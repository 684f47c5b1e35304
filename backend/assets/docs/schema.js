// JSON Schemas as trees to open, and an example to begin with.

import { h } from '/dashboard/dom.js';
import { writeJson } from '/dashboard/exact.js';

const DEEPEST = 12;

// `code` in descriptions, as Rust's doc comments have it.
export const words = (written) => String(written ?? '').split('`').map((part, at) => (at % 2 === 1 ? h('code', null, part) : part));

export function resolve(document, schema) {
  const seen = new Set();
  while (schema && typeof schema === 'object' && typeof schema.$ref === 'string' && !seen.has(schema.$ref)) {
    seen.add(schema.$ref);
    const { $ref, ...beside } = schema;
    const target = $ref.replace(/^#\//, '').split('/')
      .reduce((at, part) => at?.[part.replaceAll('~1', '/').replaceAll('~0', '~')], document);
    schema = target && typeof target === 'object' ? { ...target, ...beside } : target;
  }
  return schema;
}

function kindOf(document, schema) {
  if (schema === true || schema === undefined) return 'anything';
  if (schema === false) return 'nothing';
  if (schema.const !== undefined) return writeJson(schema.const);
  if (schema.enum) return schema.enum.map((value) => writeJson(value)).join(' | ');
  if (schema.type) {
    const type = [].concat(schema.type).join(' | ');
    return schema.format ? `${type} (${schema.format})` : type;
  }
  if (schema.oneOf || schema.anyOf) return 'one of';
  return 'anything';
}

function bounds(schema) {
  const names = { minimum: '≥', maximum: '≤', exclusiveMinimum: '>', exclusiveMaximum: '<', minItems: 'items ≥', maxItems: 'items ≤', minLength: 'length ≥', maxLength: 'length ≤', pattern: 'matches' };
  const found = Object.entries(names).filter(([key]) => schema[key] !== undefined).map(([key, name]) => `${name} ${schema[key]}`);
  if (schema.default !== undefined) found.push(`default ${writeJson(schema.default)}`);
  return found.join(', ');
}

// Children are made when they are looked at: schemas may refer to themselves.
function lazy(label, make) {
  const details = h('details', null, h('summary', null, label));
  details.addEventListener('toggle', () => {
    if (details.open && details.childElementCount === 1) details.append(make());
  });
  return details;
}

function children(document, schema, depth) {
  const list = h('ul');
  const must = new Set(schema.required ?? []);
  for (const [name, member] of Object.entries(schema.properties ?? {})) {
    list.append(h('li', null, node(document, member, name, must.has(name), depth + 1)));
  }
  if (schema.items !== undefined) list.append(h('li', null, node(document, schema.items, 'each item', false, depth + 1)));
  if (schema.additionalProperties && typeof schema.additionalProperties === 'object') {
    list.append(h('li', null, node(document, schema.additionalProperties, 'any other name', false, depth + 1)));
  }
  for (const word of ['allOf', 'anyOf', 'oneOf']) {
    for (const part of schema[word] ?? []) list.append(h('li', null, node(document, part, word === 'allOf' ? 'and' : 'or', false, depth + 1)));
  }
  return list;
}

export function node(document, schema, name, required = false, depth = 0) {
  const full = resolve(document, schema);
  const plain = full && typeof full === 'object' ? full : {};
  const label = [h('code', null, h('b', null, plain.title && name === 'or' ? plain.title : name)), ' ', h('code', { class: 'muted' }, kindOf(document, full))];
  if (required) label.push(' ', h('span', { class: 'must' }, 'required'));
  const limits = bounds(plain);
  if (limits) label.push(' ', h('small', null, limits));
  if (plain.description) label.push(' ', h('small', null, words(plain.description)));
  const nested = plain.properties || plain.items || plain.anyOf || plain.oneOf || plain.allOf
    || (plain.additionalProperties && typeof plain.additionalProperties === 'object');
  if (!nested || depth > DEEPEST) return h('span', null, label);
  const details = lazy(label, () => children(document, plain, depth));
  if (depth === 0) {
    details.open = true;
    details.append(children(document, plain, depth));
  }
  return details;
}

export const tree = (document, schema, name) => h('div', { class: 'schema' }, node(document, schema, name));

// The least that the schema asks for; its own example when it has one.
export function example(document, schema, depth = 0) {
  const full = resolve(document, schema);
  if (!full || typeof full !== 'object' || depth > DEEPEST) return null;
  if (full.examples?.length) return full.examples[0];
  if (full.default !== undefined) return full.default;
  if (full.const !== undefined) return full.const;
  if (full.enum) return full.enum[0];
  const alternatives = full.oneOf ?? full.anyOf;
  if (alternatives && !full.properties) return example(document, alternatives[0], depth + 1);
  switch ([].concat(full.type)[0]) {
    case 'object': {
      const value = {};
      for (const name of full.required ?? []) value[name] = example(document, full.properties?.[name], depth + 1);
      return value;
    }
    case 'array': return full.minItems ? [example(document, full.items, depth + 1)] : [];
    case 'integer': case 'number': return full.minimum ?? 0;
    case 'boolean': return false;
    case 'string': return '';
    default: return null;
  }
}
