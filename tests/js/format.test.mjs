import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  ago, beginning, count, duration, fieldTitle, fieldTitles, momentIn, number, percent, secondsBetween, title,
} from '../../backend/assets/dashboard/format.js';
import { recordServerTime, serverNow } from '../../backend/assets/dashboard/server-clock.js';

test('durations have at most two units', () => {
  const seconds = [0, 0.0004, 0.25, 1, 1.25, 9.99, 59.6, 60, 1234.5, 3600, 90061, 86400 * 3];
  const shown = seconds.map(duration);

  assert.deepEqual(shown, ['0ms', '0ms', '250ms', '1s', '1.3s', '10.0s', '1m 0s', '1m 0s',
    '20m 35s', '1h 0m', '1d 1h', '3d 0h']);
});

test('a negative duration shows as zero: clocks differ', () => {
  assert.equal(duration(-3), '0s');
});

test('the time between is known when both times are', () => {
  assert.equal(secondsBetween('2026-01-01T00:00:00Z', '2026-01-01T00:01:30.5Z'), 90.5);
  assert.ok(Number.isNaN(secondsBetween('2026-01-01T00:00:00Z', null)));
});

test('unknown values show as a dash', () => {
  for (const format of [count, number, duration, percent, ago]) {
    assert.equal(format(null), '–', format.name);
    assert.equal(format(undefined), '–', format.name);
  }
  assert.equal(number(Number.NaN), '–');
  assert.equal(ago('no time'), '–');
});

test('numbers keep what a reader needs', () => {
  const shown = [1234567, 1234.567, 0.123456789, 0.001, 0.000012345, -2.5]
    .map((value) => number(value));

  assert.deepEqual(shown, ['1,234,567', '1,234.57', '0.123457', '0.001', '1.234e-5', '-2.5']);
});

test('percentages never round up to a hundred', () => {
  assert.deepEqual([0, 0.04, 0.5, 9.99, 10.9, 99.99, 100].map(percent),
    ['0 %', '0 %', '0.5 %', '9.9 %', '10 %', '99 %', '100 %']);
});

test('names become words', () => {
  assert.deepEqual(['data_processing', 'retry-delay', '', 7].map(title),
    ['Data processing', 'Retry delay', '', '7']);
});

test('the beginning of a text does not cut a character in half', () => {
  assert.equal(beginning('ab😀', 3), 'ab');
  assert.equal(beginning('ab😀', 4), 'ab😀');
});

test('ages follow the clock of the backend when it differs by more than its header can', () => {
  const now = Date.now();
  const anHourLater = new Date(now + 3_600_000).toUTCString();

  recordServerTime(anHourLater, now, now);
  assert.ok(Math.abs(serverNow() - Date.now() - 3_600_000) < 2000);
  assert.equal(ago(new Date(now).toISOString()), '1h 0m ago');

  recordServerTime('no date', now, now);
  assert.ok(serverNow() - Date.now() > 3_000_000, 'an answer without a date changes nothing');

  recordServerTime(new Date(now - 1000).toUTCString(), now, now);
  assert.ok(Math.abs(serverNow() - Date.now()) < 50, 'a second is within what the header can say');
  assert.equal(ago(new Date(now).toISOString()), 'just now');
});

test('the name of a field is read with its unit', () => {
  const names = ['step_ms', 'memory_gb', 'gpu', 'task_id', 'data-source', 'ms', 'sma_ratio'];

  assert.deepEqual(names.map((name) => fieldTitle(name)),
    ['Step (ms)', 'Memory (GiB)', 'GPU', 'Task id', 'Data source', 'Ms', 'SMA ratio']);
});

test('a unit that stands at the value is not in the name, and a share is never guessed', () => {
  assert.equal(fieldTitle('total_return_pct', true), 'Total return');
  assert.equal(fieldTitle('total_return_pct'), 'Total return pct');
  assert.equal(fieldTitle('run_seconds', true), 'Run');
});

test('two fields that stand beside each other never have one name', () => {
  const fields = ['total_return', 'total_return_pct', 'max_drawdown_pct']
    .map((name) => ({ name, hasUnit: true }));

  assert.deepEqual(fieldTitles(fields), ['Total return', 'Total return pct', 'Max drawdown']);
});

test('all slots of one schedule are told with seconds, or none', () => {
  const shown = (time, withSeconds) => momentIn(time, 'UTC', withSeconds).match(/\d\d:[\d:]+/)[0];

  assert.equal(shown('2026-01-02T17:48:00Z', true), '17:48:00');
  assert.equal(shown('2026-01-02T17:48:00Z', false), '17:48');
});
