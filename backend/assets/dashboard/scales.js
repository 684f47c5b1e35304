// The arithmetic of plots: no elements here.

import { number } from './format.js';

/** @typedef {{ x0: number, x1: number, y0: number, y1: number }} Extent */

/**
 * Round values that divide a span into about `wanted` parts.
 * @param {number} low
 * @param {number} high
 * @param {number} wanted
 */
export function ticks(low, high, wanted) {
  const roughStep = (high - low) / wanted;
  if (!(roughStep > 0)) return [low];

  const power = 10 ** Math.floor(Math.log10(roughStep));
  const step = [1, 2, 2.5, 5, 10]
    .map((factor) => factor * power)
    .find((size) => size >= roughStep) ?? 10 * power;
  const found = [];
  for (let at = Math.ceil(low / step); at * step <= high + step * 1e-9; at += 1) {
    found.push(Number((at * step).toPrecision(12)));
  }
  return found;
}

/**
 * What a plot of these points spans: a margin above and below, no empty span, and no negative part
 * for positive values.
 * @param {Point[]} points at least one
 * @returns {Extent}
 */
export function extent(points) {
  let [x0, x1, y0, y1] = [Infinity, -Infinity, Infinity, -Infinity];
  for (const { x, y } of points) {
    x0 = Math.min(x0, x);
    x1 = Math.max(x1, x);
    y0 = Math.min(y0, y);
    y1 = Math.max(y1, y);
  }

  if (y0 === y1) {
    const margin = Math.abs(y0) * 0.1 || 1;
    y0 -= margin;
    y1 += margin;
  }
  const margin = (y1 - y0) * 0.05;
  y0 = y0 >= 0 ? Math.max(0, y0 - margin) : y0 - margin;
  y1 += margin;

  if (x0 === x1) {
    x0 -= 0.5;
    x1 += 0.5;
  }
  return { x0, x1, y0, y1 };
}

/**
 * At most two points per pixel: the lowest and the highest of each part, so that no peak is lost.
 * @param {Point[]} points with ascending x
 * @param {number} width in pixels
 */
export function thinOut(points, width) {
  const parts = Math.max(50, Math.floor(width));
  if (points.length <= parts * 2) return points;

  const kept = [];
  const size = points.length / parts;
  for (let part = 0; part < parts; part += 1) {
    const begin = Math.floor(part * size);
    const end = Math.floor((part + 1) * size);
    let low = points[begin];
    let high = points[begin];
    for (let at = begin + 1; at < end; at += 1) {
      if (points[at].y < low.y) low = points[at];
      if (points[at].y > high.y) high = points[at];
    }
    kept.push(...(low.x <= high.x ? [low, high] : [high, low]));
  }
  return kept;
}

/**
 * The point whose x is nearest.
 * @param {Point[]} points with ascending x, at least one
 * @param {number} x
 */
export function nearestPoint(points, x) {
  let low = 0;
  let high = points.length - 1;
  while (low < high) {
    const middle = Math.floor((low + high) / 2);
    if (points[middle].x < x) low = middle + 1;
    else high = middle;
  }

  const before = points[low - 1];
  return before && x - before.x < points[low].x - x ? before : points[low];
}

/**
 * What stands below the axis: round numbers, or the ticks of the first point, the last, and some
 * evenly between them.
 * @param {Point[]} points
 * @param {Extent} span
 * @param {number} wanted at least 2
 * @returns {{ x: number, text: string }[]}
 */
export function labelsBelow(points, { x0, x1 }, wanted) {
  if (points.some(({ tick }) => tick === undefined)) {
    // Steps and numbers of points are counted: there is none between two.
    return ticks(x0, x1, wanted).filter(Number.isInteger).map((x) => ({ x, text: number(x) }));
  }

  const last = points.length - 1;
  const found = Array.from({ length: wanted }, (_, at) =>
    points[Math.round((at / (wanted - 1)) * last)]);
  return [...new Set(found)].map(({ x, tick = '' }) => ({ x, text: tick }));
}
