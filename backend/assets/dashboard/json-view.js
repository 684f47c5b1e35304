// JSON as people read it: short values as a list of pairs, objects with the same members as a
// table, the rest as a tree whose branches are made when they are opened.

import { copyButton } from './copy.js';
import { h } from './dom.js';
import { figureText, isNameOfUser, itemSchema, memberSchema, withUnit } from './figures.js';
import { beginning, count, fieldTitles } from './format.js';

// Entries that are shown before somebody asks for more.
const PAGE = 100;
// Characters of a text that are shown before somebody asks for the rest, alone and in a cell of a
// table.
const SHORT = 400;
const SHORT_IN_CELL = 120;
// Characters that are shown at all: a text of megabytes makes the page unusable.
const MAX_SHOWN = 200000;
// A branch with more members starts closed.
const MAX_OPEN_MEMBERS = 40;
// Arrays of up to so many values become rows of a table.
const MAX_CELLS = 8;
// More pairs stand in columns.
const MAX_PAIRS_IN_ONE_COLUMN = 6;

/**
 * @param {unknown} value
 * @returns {value is Record<string, unknown>}
 */
const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);

/** @param {unknown} value */
const isScalar = (value) => value === null || typeof value !== 'object';

/**
 * Where the schemas of a value are found.
 * @typedef {{ schema: Schema | undefined, root: unknown }} Hints
 */

/** @type {Hints} */
const NO_HINTS = { schema: undefined, root: undefined };

/**
 * @param {Hints} hints
 * @param {string} name
 * @returns {Hints}
 */
const ofMember = ({ schema, root }, name) =>
  ({ schema: schema && memberSchema(schema, name, root), root });

/**
 * @param {Hints} hints
 * @returns {Hints}
 */
const ofItem = ({ schema, root }) => ({ schema: schema && itemSchema(schema, root), root });

/**
 * The labels of members. A unit stands at its value, if it is known.
 * @param {[string, unknown][]} members
 * @param {Hints} hints of the object that has them
 * @returns {string[]}
 */
function labels(members, hints) {
  const titles = fieldTitles(members.map(([name, value]) => {
    const unit = ofMember(hints, name).schema?.['x-ktrdr-unit'];
    return { name, hasUnit: withUnit(value, unit) !== null };
  }));
  return members.map(([name], at) =>
    (isNameOfUser(hints.schema, name, hints.root) ? name : titles[at]));
}

/**
 * @param {unknown} value
 * @param {Hints} hints
 * @param {number} short
 */
function scalar(value, { schema }, short = SHORT) {
  if (value === null) return h('span', { class: 'null' }, 'none');
  if (typeof value === 'boolean') return h('span', null, value ? 'yes' : 'no');
  if (typeof value === 'number') {
    const shown = figureText(value, schema?.['x-ktrdr-unit']);
    return h('span', { class: 'figure', title: String(value) }, shown);
  }
  return h('span', { class: 'string' }, value === '' ? '(empty)' : longText(String(value), short));
}

/**
 * A text, or its beginning and a button that shows the rest.
 * @param {string} text
 * @param {number} short
 * @returns {Child}
 */
function longText(text, short) {
  if (text.length <= short) return text;

  const shown = document.createTextNode(`${beginning(text, short)}… `);
  const rest = text.length > MAX_SHOWN ? `the first ${count(MAX_SHOWN)} of` : 'all';
  const more = h('button', {
    type: 'button', class: 'button small', onclick: () => {
      shown.data = text.length > MAX_SHOWN
        ? `${beginning(text, MAX_SHOWN)}… (${count(text.length)} characters in all)`
        : text;
      more.remove();
    },
  }, `Show ${rest} ${count(text.length)} characters`);
  return [shown, more];
}

/**
 * A list that shows one page of entries, and more when asked.
 * @template T
 * @param {HTMLElement} parent
 * @param {T[]} items
 * @param {(item: T, at: number) => Node} makeEntry
 * @returns {[HTMLElement, HTMLElement]} the list and its button
 */
function pagedList(parent, items, makeEntry) {
  let shown = 0;
  const more = h('button', { type: 'button', class: 'button small more', onclick: showPage });

  function showPage() {
    const page = items.slice(shown, shown + PAGE);
    page.forEach((item, at) => parent.append(makeEntry(item, shown + at)));
    shown += page.length;
    more.textContent = `Show more (${count(items.length - shown)} left)`;
    more.hidden = shown >= items.length;
  }

  showPage();
  return [parent, more];
}

/**
 * @param {unknown} value
 * @param {Hints} hints
 */
function cell(value, hints) {
  if (value === undefined) return h('td');
  const shown = isScalar(value)
    ? scalar(value, hints, SHORT_IN_CELL)
    : longText(JSON.stringify(value), SHORT_IN_CELL);
  return h('td', { class: typeof value === 'number' ? 'num' : '' }, shown);
}

/**
 * @param {Record<string, unknown>[]} rows
 * @param {Hints} hints of one row
 */
function table(rows, hints) {
  const names = [...new Set(rows.slice(0, PAGE).flatMap((row) => Object.keys(row)))];
  const heads = labels(names.map((name) => [name, rows[0]?.[name]]), hints);
  const head = h('tr', null,
    h('th', { scope: 'col' }, '#'), heads.map((shown) => h('th', { scope: 'col' }, shown)));
  const [body, more] = pagedList(h('tbody'), rows, (row, at) => h('tr', null,
    h('td', { class: 'num muted' }, String(at + 1)), names.map((name) =>
      cell(row[name], ofMember(hints, name)))));

  return [
    h('div', { class: 'scroll' },
      h('table', { class: 'grid data' }, h('thead', null, head), body)),
    more,
  ];
}

/**
 * @param {Record<string, unknown>} members
 * @param {Hints} hints
 */
function pairs(members, hints) {
  const found = Object.entries(members);
  const names = labels(found, hints);
  const entries = found.map(([name, value], at) =>
    [h('dt', null, names[at]), h('dd', null, scalar(value, ofMember(hints, name)))]);
  if (entries.length > MAX_PAIRS_IN_ONE_COLUMN) {
    return h('dl', { class: 'pairs many' }, entries.map((entry) => h('div', null, entry)));
  }
  return h('dl', { class: 'pairs' }, entries);
}

/**
 * @param {string} name
 * @param {object} value
 * @param {Hints} hints
 * @param {boolean} isOpen
 */
function branch(name, value, hints, isOpen) {
  const size = Object.keys(value).length;
  const summary = h('summary', null, name, ' ',
    h('span', { class: 'muted' }, `${count(size)} ${size === 1 ? 'entry' : 'entries'}`));
  // Small ones stand side by side.
  const isNarrow = isOpen && size <= MAX_PAIRS_IN_ONE_COLUMN && Object.values(value).every(isScalar);
  const element = h('details', { class: isNarrow ? 'branch narrow-branch' : 'branch', open: isOpen },
    summary);

  const fill = () => {
    if (element.children.length === 1) element.append(...nodes(render(value, hints)));
  };
  if (isOpen) fill();
  else element.addEventListener('toggle', fill, { once: true });
  return element;
}

/**
 * @param {Child} child
 * @returns {Node[]}
 */
const nodes = (child) => /** @type {any[]} */ ([child]).flat(Infinity).filter(Boolean);

/**
 * @param {unknown[]} list
 * @param {Hints} hints
 * @returns {Child}
 */
function renderList(list, hints) {
  const own = ofItem(hints);
  if (list.length === 0) return h('span', { class: 'null' }, 'an empty list');
  if (list.every(isObject)) return table(list, own);
  if (list.every(isShortRow)) {
    return table(list.map((row) =>
      Object.fromEntries(row.map((value, at) => [String(at + 1), value]))), NO_HINTS);
  }

  if (list.every(isScalar)) {
    return pagedList(h('ul', { class: 'values' }), list, (item) => h('li', null, scalar(item, own)));
  }
  return pagedList(h('div'), list, (item, at) => (item !== null && typeof item === 'object'
    ? branch(`#${at + 1}`, item, own, false)
    : h('p', null, scalar(item, own))));
}

/**
 * @param {unknown} value
 * @returns {value is unknown[]}
 */
function isShortRow(value) {
  return Array.isArray(value) && value.length <= MAX_CELLS && value.every(isScalar);
}

/**
 * @param {unknown} value
 * @param {Hints} hints
 * @returns {Child}
 */
function render(value, hints) {
  if (Array.isArray(value)) return renderList(value, hints);
  if (!isObject(value)) return scalar(value, hints);

  const entries = Object.entries(value);
  if (entries.length === 0) return h('span', { class: 'null' }, 'nothing');
  const scalars = entries.filter(([, item]) => isScalar(item));
  const branches = entries.filter(([, item]) => !isScalar(item));
  const names = labels(branches, hints);
  return [
    scalars.length > 0 && pairs(Object.fromEntries(scalars), hints),
    branches.length > 0 && h('div', { class: 'branches' },
      branches.map(([name, item], at) => branch(names[at], /** @type {object} */ (item),
        ofMember(hints, name), isSmall(item)))),
  ];
}

/** @param {unknown} value */
const isSmall = (value) => isObject(value) && Object.keys(value).length <= MAX_OPEN_MEMBERS;

/** @param {unknown} value */
function rawJson(value) {
  const text = JSON.stringify(value, null, 2);
  const shown = text.length > MAX_SHOWN
    ? `${beginning(text, MAX_SHOWN)}\n… (${count(text.length)} characters in all)`
    : text;
  return h('pre', { tabindex: '0' }, shown);
}

/**
 * The value, and its JSON to copy.
 * @param {unknown} value
 * @param {Schema} [schema] says the units of numbers
 */
export function jsonView(value, schema) {
  const raw = h('details', { class: 'branch raw' }, h('summary', null, 'JSON'));
  raw.addEventListener('toggle', () => {
    const copying = copyButton('the JSON', () => JSON.stringify(value, null, 2));
    raw.append(copying, rawJson(value));
  }, { once: true });
  return h('div', { class: 'data-view' }, render(value, { schema, root: schema }), raw);
}
