// What the views make of the REST interface's documents and events.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { operationAddress, operationsAddress } from '../../backend/assets/dashboard/addresses.js';
import { queryString } from '../../backend/assets/dashboard/api.js';
import { equityPoints } from '../../backend/assets/dashboard/equity-curve.js';
import { MetricSeries } from '../../backend/assets/dashboard/metric-series.js';
import { RowChanges, newerOf, pageRange } from '../../backend/assets/dashboard/page-changes.js';
import { isNewer, statusLabel } from '../../backend/assets/dashboard/status.js';
import {
  endedIn, endedInLastMinute, failuresIn,
} from '../../backend/assets/dashboard/throughput.js';

const operation = (status, updatedAt, more = {}) =>
  ({ operation_id: 'one', status, updated_at: updatedAt, progress: { percentage: 0 }, ...more });

test('metric points are numbered per metric and attempt', () => {
  const series = new MetricSeries();
  series.add([{ name: 'score', value: 1, timestamp: '', attempt: 1 },
    { name: 'score', value: 2, timestamp: '', attempt: 2 }]);
  series.add([{ name: 'score', value: 3, timestamp: '', attempt: 2 },
    { name: 'other', value: 4, timestamp: '' }]);

  const lines = [...series.plots().values()].flat()
    .map(({ name, points }) => [name, points.map(({ x, y }) => [x, y])]);

  assert.deepEqual(lines, [['score', [[1, 1]]], ['score (attempt 2)', [[1, 2], [2, 3]]],
    ['other', [[1, 4]]]]);
});

test('the step of a metric point is its x, in order', () => {
  const series = new MetricSeries();
  const at = (step, value) => ({ name: 'loss', value, timestamp: '', step });
  series.add([at(10, 1), at(30, 3), at(20, 2)]);

  const [{ points }] = series.plots().get('loss');

  assert.deepEqual(points.map(({ x, y, label }) => [x, y, label.split(' ·')[0]]),
    [[10, 1, 'step 10'], [20, 2, 'step 20'], [30, 3, 'step 30']]);
});

test('metrics that share a meaning share a plot', () => {
  const series = new MetricSeries();
  const names = ['Train_Loss', 'val_loss', 'speed'];
  series.add(names.map((name) => ({ name, value: 1, timestamp: '' })));

  const plots = [...series.plots()].map(([plot, lines]) => [plot, lines.map(({ name }) => name)]);

  assert.deepEqual(plots, [['loss', ['Train_Loss', 'val_loss']], ['speed', ['speed']]]);
});

test('points without a value are left out', () => {
  const series = new MetricSeries();
  series.add([{ name: 'score', value: null, timestamp: '' }]);

  assert.ok(series.isEmpty);
});

test('no more metric points are kept than anybody looks at', () => {
  const series = new MetricSeries();
  series.add(Array.from({ length: 200_001 }, () => ({ name: 'score', value: 1, timestamp: '' })));

  assert.ok(series.isFull);
  assert.equal(series.plots().get('score')[0].points.length, 200_000);
});

test('a document is newer by its time, but none is newer than a terminal one', () => {
  assert.ok(isNewer(operation('running', '02'), operation('running', '01')));
  assert.ok(!isNewer(operation('running', '01'), operation('running', '01')));
  assert.ok(!isNewer(operation('running', '02'), operation('completed', '01')));
  assert.ok(isNewer(operation('completed', '02'), operation('running', '01')));
});

test('an event that came while its page was fetched wins only when it is newer', () => {
  const fetched = operation('running', '02');

  assert.equal(newerOf(fetched, undefined), fetched);
  assert.equal(newerOf(fetched, operation('running', '01')), fetched);
  assert.equal(newerOf(fetched, operation('failed', '03')).status, 'failed');
});

test('progress after a document becomes part of it; a document after progress replaces it', () => {
  const changes = new RowChanges();
  const document = operation('running', '01');

  changes.addDocument(document);
  changes.addProgress('one', { percentage: 50 });
  assert.deepEqual(changes.take(),
    [['one', { document: { ...document, progress: { percentage: 50 } } }]]);

  changes.addProgress('one', { percentage: 60 });
  changes.addDocument(document);
  assert.deepEqual(changes.take(), [['one', { document }]]);
  assert.deepEqual(changes.take(), [], 'each change is taken once');
});

test('a cancel that was requested shows until the operation ends', () => {
  assert.equal(statusLabel(operation('running', '', { cancel_requested_at: '01' })), 'cancelling');
  assert.equal(statusLabel(operation('completed', '', { cancel_requested_at: '01' })), 'completed');
  assert.equal(statusLabel(operation('running', '', { cancel_requested_at: null })), 'running');
});

test('a page names its range', () => {
  assert.equal(pageRange(25, 50, 1234), '26–50 of 1,234');
  assert.equal(pageRange(0, 0, 0), 'None');
});

const minute = (time, completed, failed = 0, cancelled = 0) =>
  ({ minute: time, created: 0, completed, failed, cancelled });

test('the last minute is the running one and the rest of the one before', () => {
  const minutes = [minute('2026-01-01T00:00:00Z', 1000),
    minute('2026-01-01T00:01:00Z', 30, 20, 10), minute('2026-01-01T00:02:00Z', 6)];
  const at = (seconds) => Date.parse('2026-01-01T00:02:00Z') + seconds * 1000;

  assert.equal(endedInLastMinute(minutes, at(0)), 66);
  assert.equal(endedInLastMinute(minutes, at(15)), 51);
  assert.equal(endedInLastMinute(minutes, at(60)), 6);
  assert.equal(endedInLastMinute(minutes, at(-30)), 66, 'clocks differ');
  assert.equal(endedInLastMinute(minutes, at(500)), 6, 'figures can be old');
});

test('cancelled operations ended, but are not counted as finished', () => {
  const minutes = [minute('', 5, 3, 2), minute('', 0, 1, 0)];

  assert.equal(endedIn(minutes), 11);
  assert.deepEqual(failuresIn(minutes), { failed: 4, share: '36 % of 11 that ended' });

  const one = (completed, failed) => ({ completed, failed, cancelled: 0 });
  assert.equal(failuresIn([one(0, 0)]).share, 'none ended');
  assert.equal(failuresIn([one(999, 1)]).share, '< 1 % of 1,000 that ended');
  assert.equal(failuresIn([one(1, 999)]).share, '99 % of 1,000 that ended');
});

test('an equity curve is read in both of its shapes, without what is not a number', () => {
  assert.deepEqual(
    equityPoints({ equity_curve: [['2024-01-01T00:00:00Z', 5], ['2024-01-02T00:00:00Z', 'x'],
      ['2024-01-03T00:00:00Z', '7']] })
      .map(({ x, y, tick }) => [x, y, tick]),
    [[0, 5, '2024-01-01'], [2, 7, '2024-01-03']]);
  assert.deepEqual(
    equityPoints({ equity_curve: [{ timestamp: 'a', equity: 1 },
      { timestamp: 'b', value: 2 }] }).map(({ y }) => y), [1, 2]);
});

test('a result without an equity curve has none', () => {
  for (const result of [null, 5, {}, { equity_curve: 'x' }, { equity_curve: [[1, 2]] }]) {
    assert.equal(equityPoints(result), null);
  }
});

test('addresses carry only what is set, and escape it', () => {
  assert.equal(operationsAddress({ operation_type: '', status: '', offset: 0 }), '#/operations');
  assert.equal(operationsAddress({ operation_type: 'a&b', status: 'failed', offset: 25 }),
    '#/operations?operation_type=a%26b&status=failed&offset=25');
  assert.equal(operationAddress('a/b'), '#/operations/a%2Fb');
  assert.equal(queryString({ a: '', b: null, c: undefined, d: 0, e: 'x y' }), '?d=0&e=x+y');
  assert.equal(queryString({}), '');
});
