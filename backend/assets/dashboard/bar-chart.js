// Stacked bars, one per minute. Parts differ by hatching as well as by colour.

import { h, s, setText, show } from './dom.js';
import { count, timeOfDay } from './format.js';
import { axisLabel } from './line-chart.js';
import { ticks } from './scales.js';

/** @type {['completed', 'failed', 'cancelled']} */
const STACK = ['completed', 'failed', 'cancelled'];

const HEIGHT = 190;
const EDGE = { left: 44, right: 4, top: 8, bottom: 24 };
const BASE = HEIGHT - EDGE.bottom;
const MIN_WIDTH = 80;
// Below this width, every 20th minute is labelled instead of every 10th.
const NARROW = 420;

let charts = 0;

/** @param {Api.Minute} minute */
const hourAndMinute = ({ minute }) => timeOfDay(minute).slice(0, 5);

/** @param {Api.Minute} minute */
function describe(minute) {
  const ended = STACK.map((status) => `${count(minute[status])} ${status}`).join(', ');
  return `${hourAndMinute(minute)}: ${ended}; ${count(minute.created)} created`;
}

/**
 * @param {Api.Minute[]} minutes
 * @param {'completed' | 'failed' | 'cancelled'} status
 */
const total = (minutes, status) => minutes.reduce((sum, minute) => sum + minute[status], 0);

/**
 * @param {number} width
 * @param {number} most the highest bar
 * @param {number} scale pixels per operation
 */
function drawGrid(width, most, scale) {
  return ticks(0, most, 4).filter(Number.isInteger).map((value) => {
    const y = BASE - value * scale;
    return [
      s('line', { class: 'gridline', x1: EDGE.left, x2: width, y1: y, y2: y }),
      s('text', { class: 'axis', x: EDGE.left - 8, y: y + 4, 'text-anchor': 'end' },
        axisLabel(value)),
    ];
  });
}

/**
 * @param {Api.Minute} minute
 * @param {number} left
 * @param {number} slot the width of one minute
 * @param {number} scale pixels per operation
 * @param {string} hatching prefix of the ids of the patterns
 */
function drawColumn(minute, left, slot, scale, hatching) {
  let y = BASE;
  const parts = STACK.filter((status) => minute[status] > 0).map((status) => {
    const height = Math.max(2, minute[status] * scale);
    y -= height;
    const x = left + slot * 0.12;
    const shape = { x, y, width: slot * 0.76, height, rx: Math.min(2, slot * 0.2) };
    return [
      s('rect', { class: `stack ${status}`, ...shape }),
      status !== 'completed' && s('rect', { ...shape, fill: `url(#${hatching}-${status})` }),
    ];
  });

  const hover = { x: left, y: EDGE.top, width: slot, height: BASE - EDGE.top };
  return s('g', null,
    s('title', null, describe(minute)), s('rect', { class: 'hover', ...hover }), parts);
}

/**
 * @param {Api.Minute[]} minutes
 * @param {number} width
 * @param {number} slot the width of one minute
 */
function drawLabels(minutes, width, slot) {
  const every = width < NARROW ? 20 : 10;
  const last = minutes.length - 1;
  return minutes.map((minute, at) => {
    if ((last - at) % every !== 0 || at <= 2) return null;
    const x = EDGE.left + (at + 0.5) * slot;
    const anchor = at === last ? 'end' : 'middle';
    return s('text', { class: 'axis', x, y: HEIGHT - 6, 'text-anchor': anchor },
      hourAndMinute(minute));
  });
}

/**
 * @param {string} id
 * @param {string} path
 */
function hatchPattern(id, path) {
  return s('pattern', { id, width: 6, height: 6, patternUnits: 'userSpaceOnUse' },
    s('path', { class: 'hatching', d: path }));
}

/** @param {'completed' | 'failed' | 'cancelled'} status */
function legendEntry(status) {
  const value = h('b');
  const hatching = status === 'failed' ? 'M0 12L12 0' : 'M0 6H12';
  const sample = s('svg', { width: 12, height: 12, 'aria-hidden': 'true' },
    s('rect', { class: `stack ${status}`, width: 12, height: 12, rx: 3 }),
    status !== 'completed' && s('path', { class: 'hatching', d: hatching }));
  return { value, element: h('span', { class: 'key' }, sample, status, value) };
}

/**
 * How many operations ended in each minute.
 * @param {string} label
 */
export function minuteChart(label) {
  const plot = h('div', { class: 'plot bars' });
  const legend = STACK.map(legendEntry);
  // Empty until there are figures.
  const keys = h('div', { class: 'legend' });
  const element = h('figure', { class: 'chart' }, plot, keys);
  charts += 1;
  const hatching = `hatch-${charts}`;
  /** @type {Api.Minute[]} */
  let minutes = [];
  let drawn = '';

  function draw() {
    const width = Math.floor(plot.clientWidth);
    if (width < MIN_WIDTH || minutes.length === 0) return;

    const heights = minutes.map((minute) =>
      STACK.reduce((sum, status) => sum + minute[status], 0));
    const most = Math.max(4, ...heights);
    const slot = (width - EDGE.left - EDGE.right) / minutes.length;
    const scale = (BASE - EDGE.top) / most;

    const totals = STACK.map((status) => total(minutes, status));
    legend.forEach((entry, at) => setText(entry.value, count(totals[at])));
    if (keys.childElementCount === 0) show(keys, legend.map((entry) => entry.element));

    const summary = STACK.map((status, at) => `${totals[at]} ${status}`).join(', ');
    show(plot, s('svg',
      { width, height: HEIGHT, role: 'img', 'aria-label': `${label}: ${summary}` },
      s('defs', null,
        hatchPattern(`${hatching}-failed`, 'M0 6L6 0'),
        hatchPattern(`${hatching}-cancelled`, 'M0 3H6')),
      drawGrid(width, most, scale),
      minutes.map((minute, at) =>
        drawColumn(minute, EDGE.left + at * slot, slot, scale, hatching)),
      drawLabels(minutes, width, slot)));
  }

  new ResizeObserver(draw).observe(plot);
  return {
    element,
    /** @param {Api.Minute[]} next */
    set(next) {
      const written = JSON.stringify(next);
      if (written === drawn) return;
      drawn = written;
      minutes = next;
      draw();
    },
  };
}
