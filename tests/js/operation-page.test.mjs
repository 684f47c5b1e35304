// What the page of an operation and its row say.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { aboutOperation, parametersOf, shortId } from '../../backend/assets/dashboard/about.js';
import { timelineOf, whyNotRetried } from '../../backend/assets/dashboard/attempt-timeline.js';
import { figureText, isNameOfUser, verdictOf } from '../../backend/assets/dashboard/figures.js';

const operation = (more) => ({ operation_type: 'a_type', metadata: {}, ...more });

test('an operation is told by its summary, else by its type', () => {
  assert.equal(aboutOperation(operation({ summary: 'IBM · 1d' })), 'IBM · 1d');
  assert.equal(aboutOperation(operation({ summary: null })), 'A type');
});

test('the worker among the metadata is no parameter', () => {
  assert.deepEqual(parametersOf({ metadata: { worker_id: 'w', steps: 5 } }), { steps: 5 });
  assert.deepEqual(parametersOf({}), {});
});

test('only a generated id is shortened, to the part that differs', () => {
  assert.equal(shortId('01a21ae6cc1f740eb1e7df7eafe3c67f'), '…afe3c67f');
  assert.equal(shortId('nightly-2026-01-01-of-the-large-one'), 'nightly-2026-01-01-of-the-large-one');
});

const event = (name, time, attempt = null, data = null) =>
  ({ event: name, sequence: 1, time, attempt, worker_id: null, data });
const attempt = (number, startedAt, outcome, error = null) =>
  ({ attempt: number, worker_id: `w${number}`, started_at: startedAt, ended_at: null, outcome, error });
const told = (items) => items.map((item) =>
  (item.kind === 'attempt' ? `#${item.attempt.attempt} ${item.attempt.outcome}` : item.entry.event));

test('attempts stand in the timeline where they started, the lost one too', () => {
  const history = [event('start_requested', '01'), event('started', '02', 1),
    event('started', '04', 2), event('cancel_requested', '05'), event('cancelled', '06', 2)];
  const attempts = [attempt(1, '02', 'lost'), attempt(2, '04', 'cancelled')];

  assert.deepEqual(told(timelineOf(history, attempts)),
    ['start_requested', '#1 lost', '#2 cancelled', 'cancel_requested', 'cancelled']);
});

test('an attempt says itself that it was released or is to be retried', () => {
  const history = [event('start_requested', '01'), event('started', '02', 1),
    event('released', '03', 1), event('started', '04', 2), event('released', '05', 2),
    event('released', '06', 7)];
  const attempts = [attempt(1, '02', 'failed'), attempt(2, '04', 'released')];

  assert.deepEqual(told(timelineOf(history, attempts)),
    ['start_requested', '#1 failed', '#2 released', 'released']);
});

test('attempts are told without a history, and between its events', () => {
  assert.deepEqual(told(timelineOf([], [attempt(1, '02', 'completed')])), ['#1 completed']);
  assert.deepEqual(told(timelineOf([event('start_requested', '01'), event('failed', '09')],
    [attempt(1, '02', 'lost'), attempt(2, '10', null)])),
  ['start_requested', '#1 lost', 'failed', '#2 null']);
});

test('it is said why a failure was not retried', () => {
  const failed = (error, attempts, execution) =>
    whyNotRetried({ status: 'failed', error, attempts, execution });

  assert.match(failed({ permanent: true }, [1], { max_attempts: 3 }), /permanent/);
  assert.equal(failed({}, [1, 2, 3], { max_attempts: 3 }), 'All 3 attempts were used.');
  assert.equal(failed({}, [1], { max_attempts: 1 }), '');
  assert.equal(failed({}, [1], null), '');
  assert.equal(whyNotRetried({ status: 'completed', error: { permanent: true }, attempts: [] }), '');
});

test('figures have their units and few digits', () => {
  const shown = [[0.0446009, 'percent'], [4.46009, 'percent_points'], [0.666667, 'percent'],
    [12.04321, 'percent'], [0, 'percent'], [0.00001, 'percent'], [668723.4712, 'money'],
    [90.5, 'seconds'], [30.5, 'hours'], [1536, 'bytes'], [1048576, 'bytes'], [2148, 'count'], [1.10412345, undefined],
    [true, undefined], [null, 'percent'], ['IBM', 'money'], [NaN, 'percent']]
    .map(([value, unit]) => figureText(value, unit));

  assert.deepEqual(shown, ['4.46 %', '4.46 %', '66.67 %', '1,204.3 %', '0 %', '0.001 %', '668,723.47',
    '1m 31s', '1d 6h', '1.5 KiB', '1 MiB', '2,148', '1.104', 'yes', 'none', 'IBM', '–']);
});

test('what is not 0 is not shown as 0, and nothing as -0', () => {
  const shown = [[0.3, 'percent_points'], [0.003, 'percent'], [0.0000031, 'percent_points'],
    [-0.0000031, 'percent'], [-0, 'percent'], [-0.004, 'money'], [-0, 'count'], [-0, undefined]]
    .map(([value, unit]) => figureText(value, unit));

  assert.deepEqual(shown,
    ['0.3 %', '0.3 %', '0.0000031 %', '-0.00031 %', '0 %', '0.00', '0', '0']);
});

test('the verdict is what the schema names, with units, also inside of objects', () => {
  const schema = {
    type: 'object',
    'x-ktrdr-verdict': ['metrics.total_return_pct', 'trades', 'missing', 'metrics'],
    properties: { metrics: { $ref: '#/$defs/Metrics' }, trades: { type: 'integer' } },
    $defs: {
      Metrics: {
        type: 'object',
        properties: { total_return_pct: { type: 'number', 'x-ktrdr-unit': 'percent' } },
      },
    },
  };

  const isText = false;
  assert.deepEqual(verdictOf({ metrics: { total_return_pct: 0.0446009 }, trades: 4200 }, schema), [
    { name: 'metrics.total_return_pct', label: 'Total return', text: '4.46 %', exact: '0.0446009', isText },
    { name: 'trades', label: 'Trades', text: '4,200', exact: '4200', isText },
  ]);
  const [, name] = verdictOf({ metrics: { total_return_pct: 1 }, trades: 'a.json' }, schema);
  assert.ok(name.isText, 'a name is shown smaller than a number');
});

test('a figure of one of several parents says of which', () => {
  const schema = { 'x-ktrdr-verdict': ['accuracy', 'baseline.val_accuracy', 'best_epoch.val_loss'] };
  const result = { accuracy: 0.5, baseline: { val_accuracy: 0.4 }, best_epoch: { val_loss: 2 } };

  assert.deepEqual(verdictOf(result, schema).map(({ label }) => label),
    ['Accuracy', 'Baseline val accuracy', 'Best epoch val loss']);
});

test('names that users choose are told from those of an engine', () => {
  const root = {
    properties: { own: {}, labels: { $ref: '#/$defs/Labels' } },
    $defs: { Labels: { additionalProperties: { type: 'string' } } },
  };
  const { labels } = root.properties;

  assert.ok(isNameOfUser(labels, 'made_by', root));
  assert.ok(isNameOfUser({ additionalProperties: true }, 'made_by', root));
  assert.ok(!isNameOfUser(root, 'own', root));
  assert.ok(!isNameOfUser({ properties: {}, additionalProperties: true }, 'other', root));
  assert.ok(!isNameOfUser({ additionalProperties: false }, 'other', root));
  assert.ok(!isNameOfUser(undefined, 'other', undefined));
});

test('a result or a schema of any shape has a verdict, if only an empty one', () => {
  for (const [result, schema] of [[null, undefined], [5, {}], [{}, { 'x-ktrdr-verdict': 'x' }],
    [{ a: 1 }, { 'x-ktrdr-verdict': ['a.b.c', '__proto__', 7] }]]) {
    assert.deepEqual(verdictOf(result, schema), []);
  }
});
