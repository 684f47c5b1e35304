// Line plots, drawn as SVG. Lines differ by dashes as well as by colour.

import { h, s, setText, show } from './dom.js';
import { number } from './format.js';
import { extent, labelsBelow, nearestPoint, thinOut, ticks } from './scales.js';

const HEIGHT = 220;
const EDGE = { left: 64, right: 14, top: 12, bottom: 26 };
const DASHES = ['', '7 4', '2 4', '10 4 2 4', '1 3', '12 6'];
const MIN_WIDTH = 80;
// Pixels between two labels of the x axis.
const LABEL_WIDTH = 110;
// Up to so many points, each is drawn as a dot too.
const DOTS = 40;

const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 4 });

/**
 * A value beside the axis.
 * @param {number} value
 */
export const axisLabel = (value) =>
  (Math.abs(value) >= 10000 ? compact.format(value) : number(value));

/**
 * How values become pixels.
 * @param {import('./scales.js').Extent} spans
 * @param {number} width of the whole plot
 */
function makeScale({ x0, x1, y0, y1 }, width) {
  const innerWidth = width - EDGE.left - EDGE.right;
  const innerHeight = HEIGHT - EDGE.top - EDGE.bottom;
  return {
    width,
    innerWidth,
    toPixelX: (/** @type {number} */ x) => EDGE.left + ((x - x0) / (x1 - x0)) * innerWidth,
    toPixelY: (/** @type {number} */ y) => EDGE.top + (1 - (y - y0) / (y1 - y0)) * innerHeight,
    toX: (/** @type {number} */ pixel) => x0 + ((pixel - EDGE.left) / innerWidth) * (x1 - x0),
  };
}

/** @typedef {ReturnType<typeof makeScale>} Scale */

/**
 * @param {Scale} scale
 * @param {number[]} values
 */
function drawGrid({ width, toPixelY }, values) {
  return values.map((value) => {
    const y = toPixelY(value);
    return [
      s('line', { class: 'gridline', x1: EDGE.left, x2: width - EDGE.right, y1: y, y2: y }),
      s('text', { class: 'axis', x: EDGE.left - 8, y: y + 4, 'text-anchor': 'end' },
        axisLabel(value)),
    ];
  });
}

/**
 * @param {Scale} scale
 * @param {Point[]} points
 * @param {import('./scales.js').Extent} spans
 */
function drawLabels({ innerWidth, toPixelX }, points, spans) {
  const wanted = Math.max(2, Math.min(6, Math.floor(innerWidth / LABEL_WIDTH)));
  return labelsBelow(points, spans, wanted).map(({ x, text }) => {
    // At an end of the axis, nothing reaches beyond it.
    const anchor = x === spans.x0 ? 'start' : x === spans.x1 ? 'end' : 'middle';
    return s('text', { class: 'axis', x: toPixelX(x), y: HEIGHT - 8, 'text-anchor': anchor }, text);
  });
}

/**
 * @param {Scale} scale
 * @param {Series} series
 * @param {number} at
 */
function drawLine({ innerWidth, toPixelX, toPixelY }, series, at) {
  const points = thinOut(series.points, innerWidth);
  const path = points.map((point, index) => {
    const command = index === 0 ? 'M' : 'L';
    return `${command}${toPixelX(point.x).toFixed(1)} ${toPixelY(point.y).toFixed(1)}`;
  }).join('');

  const line = s('path', { class: `line ${lineClass(at)}`, d: path, ...dashes(at) });
  const dots = points.length <= DOTS && points.map((point) => s('circle', {
    class: `point ${lineClass(at)}`, cx: toPixelX(point.x), cy: toPixelY(point.y), r: 2.4,
  }));
  return [line, dots];
}

/** @param {number} at */
const lineClass = (at) => `line-${at % DASHES.length}`;

/** @param {number} at */
const dashes = (at) => ({ 'stroke-dasharray': DASHES[at % DASHES.length] || undefined });

/**
 * @param {Series} series
 * @param {number} at
 */
function legendEntry(series, at) {
  const sample = s('line',
    { class: `line ${lineClass(at)}`, x1: 1, x2: 25, y1: 5, y2: 5, ...dashes(at) });
  return h('span', { class: 'key' },
    s('svg', { width: 26, height: 10, 'aria-hidden': 'true' }, sample), series.name, h('b'));
}

/**
 * @param {string} name
 * @param {Series[]} series
 */
function describe(name, series) {
  const lines = series.map(({ name: line, points }) =>
    `${line}: ${points.length} points, last ${number(points.at(-1)?.y)}`);
  return `${name}. ${lines.join('; ')}`;
}

/**
 * A plot whose lines can grow.
 * @param {string} name
 */
export function lineChart(name) {
  const plot = h('div', { class: 'plot' });
  const legend = h('div', { class: 'legend' });
  const tip = h('div', { class: 'tip', hidden: true });
  const box = h('div', { class: 'plot-box' }, plot, tip);
  const element = h('figure', { class: 'chart' }, h('figcaption', null, name), box, legend);
  const cursor = s('line', { class: 'cursor', y1: EDGE.top, y2: HEIGHT - EDGE.bottom });
  hideCursor();
  /** @type {Series[]} */
  let shown = [];
  /** @type {Scale | null} */
  let scale = null;
  let legendNames = '';

  function draw() {
    const width = Math.floor(box.clientWidth);
    const points = shown.flatMap((series) => series.points);
    if (width < MIN_WIDTH || points.length === 0) return;

    const spans = extent(points);
    const current = makeScale(spans, width);
    scale = current;
    const longest = shown.reduce((best, series) =>
      (series.points.length > best.points.length ? series : best));

    hideCursor();
    show(plot, s('svg',
      { width, height: HEIGHT, role: 'img', 'aria-label': describe(name, shown) },
      drawGrid(current, ticks(spans.y0, spans.y1, 4)),
      drawLabels(current, longest.points, spans),
      shown.map((series, at) => drawLine(current, series, at)),
      cursor));
  }

  function hideCursor() {
    cursor.setAttribute('visibility', 'hidden');
  }

  /** @param {PointerEvent} event */
  function pointAt(event) {
    if (!scale) return;
    const x = scale.toX(event.clientX - plot.getBoundingClientRect().left);
    const found = shown
      .filter((series) => series.points.length > 0)
      .map((series) => ({ name: series.name, point: nearestPoint(series.points, x) }));
    if (found.length === 0) return;

    const { point } = found[0];
    const pixel = scale.toPixelX(point.x);
    cursor.setAttribute('x1', String(pixel));
    cursor.setAttribute('x2', String(pixel));
    cursor.setAttribute('visibility', 'visible');

    show(tip, h('small', null, point.label),
      found.map((one) => h('div', null, `${one.name} `, h('b', null, number(one.point.y)))));
    tip.hidden = false;
    const left = Math.max(0, Math.min(pixel + 12, scale.width - tip.offsetWidth));
    tip.style.transform = `translateX(${left}px)`;
  }

  box.addEventListener('pointermove', pointAt);
  box.addEventListener('pointerdown', pointAt);
  box.addEventListener('pointerleave', () => {
    tip.hidden = true;
    hideCursor();
  });
  new ResizeObserver(draw).observe(box);

  return {
    element,
    /** @param {Series[]} series */
    set(series) {
      shown = series;
      const names = series.map((one) => one.name).join('\n');
      if (names !== legendNames) {
        legendNames = names;
        show(legend, series.map(legendEntry));
      }
      legend.querySelectorAll('b').forEach((value, at) =>
        setText(value, number(series[at].points.at(-1)?.y)));
      draw();
    },
  };
}
