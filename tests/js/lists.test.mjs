// What the list of operations, the workers and the overview make of filters and figures.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { labelAddress, operationsAddress } from '../../backend/assets/dashboard/addresses.js';
import { queryString } from '../../backend/assets/dashboard/api.js';
import {
  failureAddress, pausedTypes, pointersOf, whyPaused,
} from '../../backend/assets/dashboard/attention.js';
import {
  filterFrom, filterQuery, isFiltered,
} from '../../backend/assets/dashboard/list-filter.js';
import { visibleRange } from '../../backend/assets/dashboard/virtual-rows.js';
import { WorkerTable } from '../../backend/assets/dashboard/worker-feed.js';
import {
  describeCounts, groupedEntries, matchingWorkers,
} from '../../backend/assets/dashboard/worker-list.js';

const NOW = Date.parse('2026-01-02T00:00:00Z');
const filter = (address) => filterFrom(new URLSearchParams(address));

test('a filter is read from its address, without what it cannot mean', () => {
  const { search, status, since, created_after: after, offset } =
    filter('search=ibm+5&status=odd&since=1h&created_after=2026-01-01T00:00:00Z&offset=-3');

  assert.deepEqual([search, status, since, after, offset], ['ibm 5', '', '1h', '', 0]);
  assert.ok(!isFiltered(filter('status=odd&created_after=yesterday&offset=50')));
  assert.ok(isFiltered(filter('worker_id=w1')));
  assert.equal(filter('schedule_id=nightly').schedule_id, 'nightly');
});

test('labels are a list in the address and in the request', () => {
  const read = filter('label=symbol:GOOG&label=night:1&label=');

  assert.deepEqual(read.label, ['symbol:GOOG', 'night:1']);
  assert.ok(isFiltered(read));
  assert.ok(!isFiltered(filter('label=')));
  assert.equal(operationsAddress({ ...read }), '#/operations?label=symbol%3AGOOG&label=night%3A1');
  assert.equal(queryString(filterQuery(read, NOW)), '?label=symbol%3AGOOG&label=night%3A1&offset=0');
  assert.equal(labelAddress('a', 'x:y'), '#/operations?label=a%3Ax%3Ay');
});

test('a range of time ends now, by the clock of the backend', () => {
  const relative = filterQuery(filter('since=1h&status=failed'), NOW);
  assert.equal(relative.created_after, '2026-01-01T23:00:00.000Z');
  assert.ok(!('since' in relative));

  const fixed = filterQuery(filter('created_before=2026-01-01T00:00:00Z'), NOW);
  assert.deepEqual([fixed.created_after, fixed.created_before], ['', '2026-01-01T00:00:00Z']);
});

const worker = (id, more = {}) => ({
  worker_id: id, worker_type: 'dummy', status: 'AVAILABLE', version: '1', endpoint_url: 'http://h:1',
  capabilities: { gpu: false }, current_operations: [], last_pull_at: new Date(NOW).toISOString(),
  registered_at: '2026-01-01T00:00:00Z', ...more,
});
const any = { search: '', worker_type: '', status: '' };

test('workers are found by what they are, have and run', () => {
  const workers = [worker('a'), worker('b', { worker_type: 'training', capabilities: { gpu: true } }),
    worker('c', { status: 'BUSY', current_operations: [{ operation_id: 'night-run' }] }),
    worker('d', { last_pull_at: '2026-01-01T00:00:00Z' })];
  const found = (change) =>
    matchingWorkers(workers, { ...any, ...change }, NOW).map((one) => one.worker_id);

  assert.deepEqual(found({}), ['d', 'a', 'c', 'b']);
  assert.deepEqual(found({ search: 'NIGHT h:1' }), ['c']);
  assert.deepEqual(found({ search: 'gpu":true' }), ['b']);
  assert.deepEqual(found({ worker_type: 'training' }), ['b']);
  assert.deepEqual(found({ status: 'BUSY' }), ['c']);
  assert.deepEqual(found({ status: 'not-pulling' }), ['d']);
});

test('a group that is closed shows only its heading, with its counts', () => {
  const workers = [worker('s', { status: 'TEMPORARILY_UNAVAILABLE', worker_type: 'b' }),
    worker('x', { worker_type: 'b' }), worker('y', { worker_type: 'a', status: 'BUSY' })];

  const entries = groupedEntries(workers, new Set(['b']));

  assert.deepEqual(entries.map((one) => one.worker?.worker_id ?? one.group.worker_type), ['a', 'y', 'b']);
  assert.equal(describeCounts(entries[2].group), '2 workers: 1 available, 1 silent');
});

test('only rows near the screen are made, and all of a short list', () => {
  assert.deepEqual(visibleRange(1000, 40, 100, 800), { begin: 0, end: 30 });
  assert.deepEqual(visibleRange(1000, 40, -20000, 800), { begin: 488, end: 532 });
  assert.deepEqual(visibleRange(1000, 40, -90000, 800), { begin: 1000, end: 1000 });
  assert.deepEqual(visibleRange(3, 40, 0, 800), { begin: 0, end: 3 });
  assert.deepEqual(visibleRange(0, 40, 0, 800), { begin: 0, end: 0 });
});

test('events keep the table of workers right', async () => {
  const table = new WorkerTable();
  await table.read(async () => [worker('a'), worker('b')]);
  table.take(worker('c'));
  table.take(worker('a', { status: 'BUSY' }));
  table.take({ worker_id: 'b', worker_type: 'dummy', removed: true });

  assert.deepEqual(table.all.map((one) => [one.worker_id, one.status]),
    [['a', 'BUSY'], ['c', 'AVAILABLE']]);
});

test('an event that comes while the list is read is not undone by the list', async () => {
  const table = new WorkerTable();
  const at = (second, more = {}) => ({ ...more, last_health_check: `2026-01-01T00:00:0${second}Z` });

  await table.read(async () => {
    table.take(worker('a', at(2, { status: 'BUSY' })));
    table.take(worker('b', at(2, { status: 'BUSY' })));
    table.take({ worker_id: 'c', worker_type: 'dummy', removed: true });
    return [worker('a', at(1)), worker('b', at(3)), worker('c', at(1))];
  });

  assert.deepEqual(table.all.map((one) => [one.worker_id, one.status]),
    [['a', 'BUSY'], ['b', 'AVAILABLE']]);
  await table.read(async () => [worker('a', at(1))]);
  assert.equal(table.all[0].status, 'AVAILABLE', 'nothing is kept for the next list');
});

test('a list that cannot be read leaves the table as it is', async () => {
  const table = new WorkerTable();
  await table.read(async () => [worker('a')]);

  await assert.rejects(table.read(() => Promise.reject(new Error('away'))));

  assert.deepEqual(table.all.map((one) => one.worker_id), ['a']);
});

const stats = (more) => ({
  queues: [], by_type: [], workers: { AVAILABLE: 1, BUSY: 0, TEMPORARILY_UNAVAILABLE: 0 }, ...more,
});
const queue = (more) => ({
  worker_type: 'dummy', queue: 'gpu-mem16', pending: 5, running: 0, oldest_pending_seconds: 63, ...more,
});

test('the overview points at what nobody can run, and links to it', () => {
  const [pointer, ...others] = pointersOf(stats({
    queues: [queue({ nobody: 'nobody has a GPU and 16 GiB' }), queue({ pending: 0, nobody: 'x' })],
  }));

  assert.equal(pointer.text,
    'Dummy: 5 pending, and nobody can run them: nobody has a GPU and 16 GiB');
  assert.equal(pointer.detail, 'The oldest has waited for 1m 3s.');
  assert.equal(pointer.address, '#/operations?operation_type=dummy&status=pending');
  assert.deepEqual(others, []);
});

test('one reason is one line, however many queues of a type have it', () => {
  const nobody = 'nobody has a GPU';
  const pointers = pointersOf(stats({ queues: [
    queue({ nobody, oldest_pending_seconds: null }),
    queue({ queue: 'gpu-p1', nobody, pending: 2, oldest_pending_seconds: 90 }),
    queue({ queue: 'gpu-p5', nobody, pending: 1, oldest_pending_seconds: 30 }),
    queue({ queue: 'large', nobody: 'nobody has 512 GiB' }),
    queue({ worker_type: 'training', nobody }),
  ] }));

  assert.deepEqual(pointers.map(({ text }) => text), [
    'Dummy: 8 pending, and nobody can run them: nobody has a GPU',
    'Dummy: 5 pending, and nobody can run them: nobody has 512 GiB',
    'Training: 5 pending, and nobody can run them: nobody has a GPU',
  ]);
  assert.equal(pointers[0].detail, 'The oldest has waited for 1m 30s.');
});

test('a type without workers is pointed at, one with workers is not', () => {
  const types = (workers) => ({
    queues: [queue({ pending: 1 })], by_type: [{ worker_type: 'dummy', workers }],
  });

  assert.match(pointersOf(stats(types(0)))[0].text, /nobody can run it: no worker of the type dummy/);
  assert.deepEqual(pointersOf(stats(types(1))), []);
});

test('a paused type is pointed at, with what waits for it', () => {
  const overview = (type, paused, until = null) =>
    ({ worker_type: type, queue: 'any', paused, paused_until: until });
  const paused = pausedTypes([overview('dummy', true), overview('training', false)]);

  const [pointer] = pointersOf(stats({ queues: [queue(), queue({ queue: 'any', pending: 2 })] }), paused);

  assert.deepEqual([...paused], [['dummy', { until: null }]]);
  assert.equal(pointer.text, 'Dummy is paused: 7 pending');
  assert.equal(whyPaused('dummy', [overview('dummy', true)]),
    'Dummy is paused until somebody resumes it; nothing of it starts.');
  assert.match(whyPaused('dummy', [overview('dummy', true, '2030-01-01T06:00:00Z')]),
    /^Dummy is paused until .*2030.*; nothing of it starts\.$/);
  assert.equal(whyPaused('training', [overview('dummy', true)]), '');
});

test('silent workers are pointed at', () => {
  const [pointer] = pointersOf(stats({
    workers: { AVAILABLE: 1, BUSY: 0, TEMPORARILY_UNAVAILABLE: 2 },
  }));

  assert.equal(pointer.text, '2 workers are silent: no heartbeat comes');
  assert.equal(pointer.address, '#/workers?status=TEMPORARILY_UNAVAILABLE');
});

test('a kind of failure leads to exactly those', () => {
  const address = failureAddress({ operation_type: 'dummy', error_code: 'engine_error' }, NOW);

  assert.equal(address, '#/operations?status=failed&operation_type=dummy&error_code=engine_error'
    + '&ended_after=2026-01-02T00%3A00%3A00.000Z');
  const read = filter(address.split('?')[1]);
  assert.equal(read.ended_after, '2026-01-02T00:00:00.000Z');
  assert.ok(isFiltered(filter('ended_after=2026-01-02')));
});
