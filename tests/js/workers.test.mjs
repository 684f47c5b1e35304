import assert from 'node:assert/strict';
import { test } from 'node:test';

import { api } from '../../backend/assets/dashboard/api.js';
import { meetsRequirements, whyNoWorker } from '../../backend/assets/dashboard/requirements.js';
import {
  capabilityLabels, isNotPulling, sortedByNeed,
} from '../../backend/assets/dashboard/worker-facts.js';

const NOW = Date.parse('2026-01-01T01:00:00Z');
const secondsAgo = (seconds) => new Date(NOW - seconds * 1000).toISOString();
const worker = (id, more = {}) => ({
  worker_id: id, worker_type: 'dummy', status: 'AVAILABLE', last_pull_at: secondsAgo(1),
  registered_at: secondsAgo(5000),
  capabilities: { gpu: false }, slots: 1, ...more,
});

// The cases of `Requirements::met_by` in shared/protocol/src/requirements.rs.
test('a worker meets requirements when it has at least what they ask for', () => {
  assert.ok(meetsRequirements({}, { gpu: false }));
  assert.ok(meetsRequirements({ gpu: false, cores: null, memory_gb: null }, { gpu: false }));
  assert.ok(meetsRequirements({ gpu: true, cores: 4, memory_gb: 8 },
    { gpu: true, cores: 4, memory_gb: 8 }));
  assert.ok(!meetsRequirements({ gpu: true }, { gpu: false, cores: 64, memory_gb: 64 }));
  assert.ok(!meetsRequirements({ cores: 5 }, { gpu: true, cores: 4 }));
  assert.ok(!meetsRequirements({ memory_gb: 9 }, { gpu: true, memory_gb: 8 }));
});

test('a capability that is not stated is not assumed', () => {
  assert.ok(!meetsRequirements({ cores: 1 }, { gpu: true }));
  assert.ok(!meetsRequirements({ memory_gb: 1 }, { gpu: true, memory_gb: null }));
});

test('what keeps an operation waiting is named', () => {
  const silent = worker('w', { status: 'TEMPORARILY_UNAVAILABLE', capabilities: { gpu: true } });
  const why = (workers, requirements = {}) => whyNoWorker('dummy', workers, requirements);

  assert.match(why([]), /No worker of the type dummy is here/);
  assert.match(why([silent]), /answers/);
  assert.match(why([worker('w'), silent], { gpu: true, cores: 1, memory_gb: 2048 }),
    /\(a GPU, 1 core, 2,048 GiB of memory\)/);
});

test('nothing keeps an operation waiting while a worker can run it, even a busy one', () => {
  assert.equal(whyNoWorker('dummy', [worker('w', { status: 'BUSY' })], {}), '');
});

test('a free worker that has not pulled for a while is marked', () => {
  assert.ok(isNotPulling(worker('w', { last_pull_at: secondsAgo(91) }), NOW));
  assert.ok(isNotPulling(worker('w', { last_pull_at: null }), NOW), 'it has never pulled');
  assert.ok(!isNotPulling(worker('w', { last_pull_at: secondsAgo(90) }), NOW));
  assert.ok(!isNotPulling(worker('w', { status: 'BUSY', last_pull_at: secondsAgo(500) }), NOW));
});

test('workers that need attention stand first, then by type and by number', () => {
  const workers = [
    worker('w10'), worker('w9'), worker('a', { worker_type: 'backtesting' }),
    worker('quiet', { last_pull_at: secondsAgo(500) }),
    worker('silent', { status: 'TEMPORARILY_UNAVAILABLE' }),
  ];

  const order = sortedByNeed(workers, NOW).map((one) => one.worker_id);

  assert.deepEqual(order, ['silent', 'quiet', 'a', 'w9', 'w10']);
});

test('capabilities are told, also those that the page does not know', () => {
  const labels = capabilityLabels(worker('w', { slots: 2,
    capabilities: { gpu: true, cores: 8, memory_gb: 16, zone: 'eu', disks: [1] } }));

  assert.deepEqual(labels, ['GPU', '8 cores', '16 GiB', '2 slots', 'zone: eu', 'disks: [1]']);
  assert.deepEqual(capabilityLabels(worker('w')), ['CPU only']);
});

test('all pages of workers are read', async () => {
  const pages = new Map([
    ['/api/v1/workers?worker_type=dummy',
      { workers: [worker('a'), worker('b')], next: '/api/v1/workers?worker_type=dummy&offset=2' }],
    ['/api/v1/workers?worker_type=dummy&offset=2', { workers: [worker('c')], next: null }],
  ]);
  globalThis.fetch = async (path) => {
    const { workers, next } = pages.get(path);
    const headers = next === null ? {} : { link: `<${next}>; rel="next"` };
    return Response.json(workers, { headers });
  };

  const found = await api.workers(new AbortController().signal, 'dummy');

  assert.deepEqual(found.map((one) => one.worker_id), ['a', 'b', 'c']);
});
