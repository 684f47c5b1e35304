// Plots, drawn as SVG. Lines differ by dashes and bars by hatching as well as by colour.

import { h, s, show, text } from './dom.js';
import { count, number, timeOfDay } from './format.js';

const HEIGHT = 220;
const EDGE = { left: 64, right: 14, top: 12, bottom: 26 };
const DASHES = ['', '7 4', '2 4', '10 4 2 4', '1 3', '12 6'];
let patterns = 0;

// Round values that divide the span into about `wanted` parts.
function ticks(low, high, wanted) {
  const rough = (high - low) / wanted;
  if (!(rough > 0)) return [low];
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= rough);
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at += 1) found.push(Number((at * step).toPrecision(12)));
  return found;
}

const compact = new Intl.NumberFormat('en', { notation: 'compact', maximumSignificantDigits: 4 });
const short = (value) => (Math.abs(value) >= 10000 ? compact.format(value) : number(value));

// At most two points a pixel: the lowest and the highest of each part, so that no peak is lost.
function thin(points, width) {
  const room = Math.max(50, Math.floor(width));
  if (points.length <= room * 2) return points;
  const kept = [];
  const size = points.length / room;
  for (let part = 0; part < room; part += 1) {
    let low = null;
    let high = null;
    for (let at = Math.floor(part * size); at < Math.floor((part + 1) * size); at += 1) {
      const point = points[at];
      if (!low || point.y < low.y) low = point;
      if (!high || point.y > high.y) high = point;
    }
    if (!low) continue;
    kept.push(...(low.x <= high.x ? [low, high] : [high, low]));
  }
  return kept;
}

// `series`: [{name, points: [{x, y, label}]}], x ascending.
export function lines(name) {
  const plot = h('div', { class: 'plot' });
  const legend = h('div', { class: 'legend' });
  const tip = h('div', { class: 'tip', hidden: true });
  const box = h('div', { class: 'plot-box' }, plot, tip);
  const element = h('figure', { class: 'chart' }, h('figcaption', null, name), box, legend);
  let series = [];
  let scale = null;

  function draw() {
    const width = Math.floor(box.clientWidth);
    if (width < 80) return;
    const all = series.flatMap((one) => one.points);
    if (all.length === 0) return;
    let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
    for (const { x, y } of all) {
      x0 = Math.min(x0, x); x1 = Math.max(x1, x);
      y0 = Math.min(y0, y); y1 = Math.max(y1, y);
    }
    if (y0 === y1) { const pad = Math.abs(y0) * 0.1 || 1; y0 -= pad; y1 += pad; }
    const room = (y1 - y0) * 0.05;
    [y0, y1] = [y0 >= 0 ? Math.max(0, y0 - room) : y0 - room, y1 + room];
    if (x0 === x1) { x0 -= 0.5; x1 += 0.5; }
    const inner = { w: width - EDGE.left - EDGE.right, h: HEIGHT - EDGE.top - EDGE.bottom };
    const px = (x) => EDGE.left + (x - x0) / (x1 - x0) * inner.w;
    const py = (y) => EDGE.top + (1 - (y - y0) / (y1 - y0)) * inner.h;
    const longest = series.reduce((best, one) => (one.points.length > best.points.length ? one : best));
    const grid = ticks(y0, y1, 4).map((y) => [
      s('line', { class: 'gridline', x1: EDGE.left, x2: width - EDGE.right, y1: py(y), y2: py(y) }),
      s('text', { class: 'axis', x: EDGE.left - 8, y: py(y) + 4, 'text-anchor': 'end' }, short(y))]);
    const wanted = Math.max(2, Math.min(6, Math.floor(inner.w / 110)));
    const marks = longest.points.length <= 1 ? longest.points
      : Array.from({ length: wanted }, (_, at) => longest.points[Math.round(at / (wanted - 1) * (longest.points.length - 1))]);
    const below = [...new Set(marks)].map((point, at, list) =>
      s('text', { class: 'axis', x: px(point.x), y: HEIGHT - 8, 'text-anchor': at === 0 ? 'start' : at === list.length - 1 ? 'end' : 'middle' }, point.tick));
    const paths = series.map((one, at) => {
      const points = thin(one.points, inner.w);
      const data = points.map((point, index) => `${index === 0 ? 'M' : 'L'}${px(point.x).toFixed(1)} ${py(point.y).toFixed(1)}`).join('');
      return [s('path', { class: `line line-${at % 6}`, d: data, 'stroke-dasharray': DASHES[at % 6] || undefined }),
        points.length <= 40 && points.map((point) => s('circle', { class: `point line-${at % 6}`, cx: px(point.x), cy: py(point.y), r: 2.4 }))];
    });
    const cursor = s('line', { class: 'cursor', y1: EDGE.top, y2: HEIGHT - EDGE.bottom, visibility: 'hidden' });
    scale = { px, x0, x1, inner, cursor, width };
    const said = series.map((one) => `${one.name}: ${one.points.length} points, last ${number(one.points.at(-1)?.y)}`).join('; ');
    show(plot, s('svg', { width, height: HEIGHT, role: 'img', 'aria-label': `${name}. ${said}` }, grid, below, paths, cursor));
  }

  function nearest(points, x) {
    let [low, high] = [0, points.length - 1];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (points[middle].x < x) low = middle + 1; else high = middle;
    }
    return low > 0 && x - points[low - 1].x < points[low].x - x ? points[low - 1] : points[low];
  }

  function point(event) {
    if (!scale) return;
    const left = event.clientX - plot.getBoundingClientRect().left;
    const x = scale.x0 + (left - EDGE.left) / scale.inner.w * (scale.x1 - scale.x0);
    const near = series.filter((one) => one.points.length > 0).map((one) => [one, nearest(one.points, x)]);
    if (near.length === 0) return;
    const at = scale.px(near[0][1].x);
    scale.cursor.setAttribute('x1', at);
    scale.cursor.setAttribute('x2', at);
    scale.cursor.setAttribute('visibility', 'visible');
    show(tip, h('small', null, near[0][1].label), near.map(([one, found]) => h('div', null, `${one.name} `, h('b', null, number(found.y)))));
    tip.hidden = false;
    tip.style.transform = `translateX(${Math.max(0, Math.min(at + 12, scale.width - tip.offsetWidth))}px)`;
  }
  box.addEventListener('pointermove', point);
  box.addEventListener('pointerdown', point);
  box.addEventListener('pointerleave', () => { tip.hidden = true; scale?.cursor.setAttribute('visibility', 'hidden'); });
  const watcher = new ResizeObserver(draw);
  watcher.observe(box);

  let legendOf = '';
  return {
    element,
    set(next) {
      series = next;
      const names = next.map((one) => one.name).join('\n');
      if (names !== legendOf) {
        legendOf = names;
        show(legend, next.map((one, at) => h('span', { class: 'key' },
          s('svg', { width: 26, height: 10, 'aria-hidden': 'true' }, s('line', { class: `line line-${at % 6}`, x1: 1, x2: 25, y1: 5, y2: 5, 'stroke-dasharray': DASHES[at % 6] || undefined })),
          one.name, h('b', null))));
      }
      next.forEach((one, at) => text(legend.children[at].querySelector('b'), number(one.points.at(-1)?.y)));
      draw();
    },
  };
}

const KINDS = ['completed', 'failed', 'cancelled'];

// Stacked bars, one a minute.
export function bars({ label }) {
  const plot = h('div', { class: 'plot bars' });
  const legend = h('div', { class: 'legend' });
  const values = KINDS.map((kind) => {
    const sum = h('b', null, '0');
    legend.append(h('span', { class: 'key' }, s('svg', { width: 12, height: 12, 'aria-hidden': 'true' }, s('rect', { class: `stack ${kind}`, width: 12, height: 12, rx: 3 }),
      kind !== 'completed' && s('path', { class: 'hatching', d: kind === 'failed' ? 'M0 12L12 0' : 'M0 6H12' })), kind, sum));
    return sum;
  });
  const element = h('figure', { class: 'chart' }, plot, legend);
  patterns += 1;
  const prefix = `hatch-${patterns}`;
  let minutes = [];

  function draw() {
    const width = Math.floor(plot.clientWidth);
    if (width < 80 || minutes.length === 0) return;
    const [height, left, bottom, top] = [190, 44, 24, 8];
    const most = Math.max(4, ...minutes.map((minute) => KINDS.reduce((sum, kind) => sum + minute[kind], 0)));
    const slot = (width - left - 4) / minutes.length;
    const scale = (height - bottom - top) / most;
    const grid = ticks(0, most, 4).filter(Number.isInteger).map((value) => [
      s('line', { class: 'gridline', x1: left, x2: width, y1: height - bottom - value * scale, y2: height - bottom - value * scale }),
      s('text', { class: 'axis', x: left - 8, y: height - bottom - value * scale + 4, 'text-anchor': 'end' }, short(value))]);
    const columns = minutes.map((minute, at) => {
      let y = height - bottom;
      const x = left + at * slot + slot * 0.12;
      const tells = `${timeOfDay(minute.minute).slice(0, 5)}: ${KINDS.map((kind) => `${count(minute[kind])} ${kind}`).join(', ')}; ${count(minute.created)} created`;
      return s('g', null, s('title', null, tells),
        s('rect', { class: 'hover', x: left + at * slot, y: top, width: slot, height: height - bottom - top }),
        KINDS.filter((kind) => minute[kind] > 0).map((kind) => {
          const tall = Math.max(2, minute[kind] * scale);
          y -= tall;
          const shape = { x, y, width: slot * 0.76, height: tall, rx: Math.min(2, slot * 0.2) };
          return [s('rect', { class: `stack ${kind}`, ...shape }), kind !== 'completed' && s('rect', { ...shape, fill: `url(#${prefix}-${kind})` })];
        }));
    });
    const every = width < 420 ? 20 : 10;
    const below = minutes.map((minute, at) => ((minutes.length - 1 - at) % every === 0 && at > 2
      ? s('text', { class: 'axis', x: left + (at + 0.5) * slot, y: height - 6, 'text-anchor': at === minutes.length - 1 ? 'end' : 'middle' }, timeOfDay(minute.minute).slice(0, 5)) : null));
    const sums = KINDS.map((kind) => minutes.reduce((sum, minute) => sum + minute[kind], 0));
    sums.forEach((sum, at) => text(values[at], count(sum)));
    const hatch = (kind, d) => s('pattern', { id: `${prefix}-${kind}`, width: 6, height: 6, patternUnits: 'userSpaceOnUse' }, s('path', { class: 'hatching', d }));
    show(plot, s('svg', { width, height, role: 'img', 'aria-label': `${label}: ${KINDS.map((kind, at) => `${sums[at]} ${kind}`).join(', ')}` },
      s('defs', null, hatch('failed', 'M0 6L6 0'), hatch('cancelled', 'M0 3H6')), grid, columns, below));
  }
  new ResizeObserver(draw).observe(plot);
  let drawn = '';
  return {
    element,
    set(next) {
      const wanted = JSON.stringify(next);
      if (wanted === drawn) return;
      drawn = wanted;
      minutes = next;
      draw();
    },
  };
}
