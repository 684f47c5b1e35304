// JSON as people read it: short values as a list of pairs, equal objects as a table, the rest as a tree that opens on demand.

import { h } from './dom.js';
import { count, number, title } from './format.js';

const ROWS = 100;
// Characters of a text that are laid out before anybody asks for the rest, in all and in a cell of a table; and the most that
// are laid out at all. A text of megabytes makes the page unusable.
const BRIEF = 400;
const BRIEF_IN_CELL = 120;
const LONGEST = 200000;
const isObject = (value) => value !== null && typeof value === 'object' && !Array.isArray(value);
const isFlat = (value) => value === null || typeof value !== 'object';

function scalar(value, brief = BRIEF) {
  if (value === null) return h('span', { class: 'null' }, 'none');
  if (typeof value === 'boolean') return h('span', null, value ? 'yes' : 'no');
  if (typeof value === 'number') return h('span', { class: 'figure', title: String(value) }, number(value));
  return h('span', { class: 'string' }, value === '' ? '(empty)' : long(String(value), brief));
}

function long(whole, brief) {
  if (whole.length <= brief) return whole;
  const shown = document.createTextNode(`${start(whole, brief)}… `);
  const rest = whole.length > LONGEST ? `the first ${count(LONGEST)} of` : 'all';
  const more = h('button', { type: 'button', class: 'button small', onclick: () => {
    shown.data = whole.length > LONGEST ? `${start(whole, LONGEST)}… (${count(whole.length)} characters in all)` : whole;
    more.remove();
  } }, `Show ${rest} ${count(whole.length)} characters`);
  return [shown, more];
}

// Not ending within a character that takes two places.
const start = (whole, length) => whole.slice(0, length).replace(/[\ud800-\udbff]$/, '');

// A list that shows a part, and more on demand.
function growing(items, make, wrap) {
  const parent = wrap();
  let shown = 0;
  const more = h('button', { type: 'button', class: 'button small more', onclick: () => grow() });
  function grow() {
    const next = items.slice(shown, shown + ROWS);
    next.forEach((item, at) => parent.append(make(item, shown + at)));
    shown += next.length;
    more.textContent = `Show more (${count(items.length - shown)} left)`;
    more.hidden = shown >= items.length;
  }
  grow();
  return [parent, more];
}

function table(list) {
  const names = [...new Set(list.slice(0, ROWS).flatMap((row) => Object.keys(row)))];
  const [body, more] = growing(list, (row, at) => h('tr', null, h('td', { class: 'num muted' }, String(at + 1)),
    names.map((name) => h('td', { class: typeof row[name] === 'number' ? 'num' : '' }, row[name] === undefined ? '' : isFlat(row[name]) ? scalar(row[name], BRIEF_IN_CELL) : long(JSON.stringify(row[name]), BRIEF_IN_CELL)))),
  () => h('tbody'));
  return [h('div', { class: 'scroll' }, h('table', { class: 'grid data' },
    h('thead', null, h('tr', null, h('th', { scope: 'col' }, '#'), names.map((name) => h('th', { scope: 'col' }, title(name))))), body)), more];
}

export function pairs(object) {
  // Many figures stand in columns.
  if (Object.keys(object).length > 6) {
    return h('dl', { class: 'pairs many' }, Object.entries(object).map(([name, value]) => h('div', null, h('dt', null, title(name)), h('dd', null, scalar(value)))));
  }
  return h('dl', { class: 'pairs' }, Object.entries(object).map(([name, value]) => [h('dt', null, title(name)), h('dd', null, scalar(value))]));
}

function branch(name, value, open) {
  const size = Array.isArray(value) ? value.length : Object.keys(value).length;
  const summary = h('summary', null, name, ' ', h('span', { class: 'muted' }, `${count(size)} ${size === 1 ? 'entry' : 'entries'}`));
  const element = h('details', { class: 'branch', open }, summary);
  const fill = () => { if (element.children.length === 1) element.append(...[view(value)].flat(Infinity).filter(Boolean)); };
  if (open) fill();
  else element.addEventListener('toggle', fill, { once: true });
  return element;
}

export function view(value) {
  if (isFlat(value)) return scalar(value);
  if (Array.isArray(value)) {
    if (value.length === 0) return h('span', { class: 'null' }, 'an empty list');
    if (value.every(isObject)) return table(value);
    if (value.every((item) => Array.isArray(item) && item.length <= 8 && item.every(isFlat))) {
      return table(value.map((item) => Object.fromEntries(item.map((cell, at) => [String(at + 1), cell]))));
    }
    if (value.every(isFlat)) return growing(value, (item) => h('li', null, scalar(item)), () => h('ul', { class: 'values' }));
    return growing(value, (item, at) => (isFlat(item) ? h('p', null, scalar(item)) : branch(`#${at + 1}`, item, false)), () => h('div'));
  }
  const entries = Object.entries(value);
  if (entries.length === 0) return h('span', { class: 'null' }, 'nothing');
  const flat = entries.filter(([, item]) => isFlat(item));
  const deep = entries.filter(([, item]) => !isFlat(item));
  return [flat.length > 0 && pairs(Object.fromEntries(flat)),
    deep.map(([name, item]) => branch(title(name), item, !Array.isArray(item) && Object.keys(item).length <= 40))];
}

// The value, and its JSON to copy.
export function data(value) {
  const raw = h('details', { class: 'branch raw' }, h('summary', null, 'JSON'));
  raw.addEventListener('toggle', () => {
    const whole = JSON.stringify(value, null, 2);
    raw.append(h('pre', { tabindex: '0' }, whole.length > LONGEST ? `${start(whole, LONGEST)}\n… (${count(whole.length)} characters in all)` : whole));
  }, { once: true });
  return h('div', { class: 'data-view' }, view(value), raw);
}
