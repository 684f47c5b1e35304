import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  extent, labelsBelow, nearestPoint, thinOut, ticks,
} from '../../backend/assets/dashboard/scales.js';

const points = (...ys) => ys.map((y, x) => ({ x, y }));

test('ticks are round and inside the span', () => {
  assert.deepEqual(ticks(0, 10, 4), [0, 2.5, 5, 7.5, 10]);
  assert.deepEqual(ticks(0.1, 0.5, 4), [0.1, 0.2, 0.3, 0.4, 0.5]);
  assert.deepEqual(ticks(-3, 3, 4), [-2, 0, 2]);
  assert.deepEqual(ticks(98700, 101300, 4), [99000, 100000, 101000]);
});

test('a span of nothing has one tick', () => {
  assert.deepEqual(ticks(5, 5, 4), [5]);
});

test('a plot has a margin, but no negative part for positive values', () => {
  assert.deepEqual(extent(points(0, 100)), { x0: 0, x1: 1, y0: 0, y1: 105 });
  assert.deepEqual(extent(points(-100, 100)), { x0: 0, x1: 1, y0: -110, y1: 110 });
});

test('one point and equal points span something', () => {
  for (const ys of [[0], [7], [-7, -7]]) {
    const { x0, x1, y0, y1 } = extent(points(...ys));

    assert.ok(x0 < x1 && y0 < y1, String(ys));
    assert.ok(y0 <= ys[0] && ys[0] <= y1, String(ys));
  }
});

test('thinning keeps every peak and the order, and at most two points per pixel', () => {
  const many = points(...Array.from({ length: 10_000 },
    (_, at) => (at === 4321 ? 99 : at === 8765 ? -99 : Math.sin(at))));

  const kept = thinOut(many, 100);

  assert.ok(kept.length <= 200);
  assert.ok(kept.some(({ y }) => y === 99) && kept.some(({ y }) => y === -99));
  assert.ok(kept.every(({ x }, at) => at === 0 || kept[at - 1].x <= x));
});

test('few points stay as they are', () => {
  const few = points(1, 2, 3);

  assert.equal(thinOut(few, 10), few);
});

test('the nearest point is found on both sides, and at the ends', () => {
  const sparse = [0, 10, 11, 30].map((x) => ({ x, y: 0 }));
  const found = [-5, 4, 6, 10.4, 10.6, 20, 21, 99].map((x) => nearestPoint(sparse, x).x);

  assert.deepEqual(found, [0, 0, 10, 10, 11, 11, 30, 30]);
});

test('points with ticks are labelled at the first and the last, and none twice', () => {
  const labelled = (length, wanted) => {
    const named = points(...Array(length).keys()).map((one) => ({ ...one, tick: `day ${one.x}` }));
    return labelsBelow(named, { x0: 0, x1: length - 1 }, wanted).map(({ text }) => text);
  };

  assert.deepEqual(labelled(100, 3), ['day 0', 'day 50', 'day 99']);
  assert.deepEqual(labelled(2, 6), ['day 0', 'day 1']);
  assert.deepEqual(labelled(1, 6), ['day 0']);
});

test('counted points are labelled with round numbers', () => {
  const labelled = (first, last, wanted) =>
    labelsBelow([{ x: first, y: 0 }, { x: last, y: 0 }], { x0: first, x1: last }, wanted)
      .map(({ x, text }) => [x, text]);

  assert.deepEqual(labelled(1, 3590, 4), [[1000, '1,000'], [2000, '2,000'], [3000, '3,000']]);
  assert.deepEqual(labelled(1, 3, 6), [[1, '1'], [2, '2'], [3, '3']]);
  assert.deepEqual(labelsBelow([{ x: 5, y: 0 }], { x0: 4.5, x1: 5.5 }, 6), [{ x: 5, text: '5' }]);
});
