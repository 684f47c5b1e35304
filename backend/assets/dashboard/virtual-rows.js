// A table with very many rows of one height: only those that are on the screen are elements.

import { h, keyedList } from './dom.js';
import { perFrame } from './throttle.js';

// Rows above and below the screen, so that scrolling does not show a gap.
const MARGIN_ROWS = 12;
// Until a row has been measured.
const FIRST_HEIGHT = 40;

/**
 * Which rows to make.
 * @param {number} count
 * @param {number} height of a row
 * @param {number} top of the first row, from the top of the screen
 * @param {number} screen its height
 */
export function visibleRange(count, height, top, screen) {
  const first = Math.floor(-top / height) - MARGIN_ROWS;
  const last = Math.ceil((screen - top) / height) + MARGIN_ROWS;
  const begin = Math.min(Math.max(0, first), count);
  return { begin, end: Math.max(begin, Math.min(count, last)) };
}

/**
 * @template T
 * @template {{ element: HTMLElement, update(item: T): void }} Row
 * @param {HTMLTableElement} table its rows scroll with the page
 * @param {(item: T) => string} keyOf
 * @param {(item: T) => Row} makeRow
 */
export function virtualRows(table, keyOf, makeRow) {
  const above = h('td', { class: 'gap', colspan: 99 });
  const below = h('td', { class: 'gap', colspan: 99 });
  const body = h('tbody');
  const rows = keyedList(body, keyOf, makeRow);
  const spacer = (/** @type {HTMLElement} */ cell) =>
    h('tbody', { 'aria-hidden': 'true' }, h('tr', { class: 'gap-row' }, cell));
  const [before, after] = [spacer(above), spacer(below)];
  table.append(before, body, after);

  /** @type {T[]} */
  let items = [];
  let height = FIRST_HEIGHT;

  function draw() {
    const top = before.getBoundingClientRect().top;
    const { begin, end } = visibleRange(items.length, height, top, innerHeight);
    above.style.height = `${begin * height}px`;
    below.style.height = `${(items.length - end) * height}px`;
    rows.set(items.slice(begin, end));
    [...body.children].forEach((row, at) => row.setAttribute('aria-rowindex', `${begin + at + 2}`));
    table.setAttribute('aria-rowcount', String(items.length + 1));

    const measured = body.firstElementChild?.getBoundingClientRect().height ?? 0;
    if (measured > 0 && Math.abs(measured - height) > 0.5) {
      height = measured;
      draw();
    }
  }

  const drawSoon = perFrame(draw);
  addEventListener('scroll', drawSoon, { passive: true });
  addEventListener('resize', drawSoon);
  return {
    body,
    get: rows.get,
    /** @param {T[]} next */
    set(next) {
      items = next;
      drawSoon();
    },
    stop() {
      removeEventListener('scroll', drawSoon);
      removeEventListener('resize', drawSoon);
    },
  };
}
