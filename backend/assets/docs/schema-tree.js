// JSON Schemas as trees to open.

import { h } from '../dashboard/dom.js';
import { markCode } from '../dashboard/words.js';
import { MAX_DEPTH, limitsLabel, resolve, typeLabel } from './schema-facts.js';

/** @typedef {import('./schema-facts.js').AnySchema} AnySchema */

/**
 * @param {unknown} document
 * @param {AnySchema} schema
 * @param {string} name
 */
export function schemaTree(document, schema, name) {
  return h('div', { class: 'schema' }, schemaNode(document, schema, name, false, 0));
}

/**
 * @param {unknown} document
 * @param {AnySchema} schema
 * @param {string} name
 * @param {boolean} isRequired
 * @param {number} depth
 * @returns {HTMLElement}
 */
function schemaNode(document, schema, name, isRequired, depth) {
  const resolved = resolve(document, schema);
  const found = typeof resolved === 'object' ? resolved : {};
  const limits = limitsLabel(found);
  const shownName = found.title && name === 'or' ? found.title : name;
  const label = [
    h('code', null, h('b', null, shownName)), ' ',
    h('code', { class: 'muted' }, typeLabel(resolved)),
    isRequired && [' ', h('span', { class: 'must' }, 'required')],
    limits && [' ', h('small', null, limits)],
    found.description && [' ', h('small', null, markCode(found.description))],
  ];

  const members = membersOf(found);
  if (members.length === 0 || depth > MAX_DEPTH) return h('span', null, label);
  const makeList = () => h('ul', null, members.map((member) => h('li', null,
    schemaNode(document, member.schema, member.name, member.isRequired, depth + 1))));
  return branch(label, makeList, depth === 0);
}

/**
 * @param {Child} label
 * @param {() => Node} makeList called when it is opened: schemas may refer to themselves
 * @param {boolean} isOpen
 */
function branch(label, makeList, isOpen) {
  const details = h('details', { open: isOpen }, h('summary', null, label));
  const fill = () => {
    if (details.open && details.childElementCount === 1) details.append(makeList());
  };
  fill();
  details.addEventListener('toggle', fill);
  return details;
}

/**
 * The schemas inside a schema.
 * @param {Schema} schema
 * @returns {{ name: string, schema: AnySchema, isRequired: boolean }[]}
 */
function membersOf(schema) {
  const { properties = {}, required = [], items, additionalProperties } = schema;
  const members = Object.entries(properties).map(([name, member]) =>
    ({ name, schema: /** @type {AnySchema} */ (member), isRequired: required.includes(name) }));
  const add = (/** @type {string} */ name, /** @type {AnySchema} */ member) =>
    members.push({ name, schema: member, isRequired: false });

  if (items !== undefined) add('each item', items);
  if (typeof additionalProperties === 'object') add('any other name', additionalProperties);
  for (const part of schema.allOf ?? []) add('and', part);
  for (const part of [...schema.anyOf ?? [], ...schema.oneOf ?? []]) add('or', part);
  return members;
}
