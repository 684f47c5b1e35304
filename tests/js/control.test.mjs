// What the dashboard says about bulk actions, waiting operations, and schedules.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  bulkFilter, filterOfThose, isPossible, outcomeOf, questionOf, reasonOf,
} from '../../backend/assets/dashboard/bulk.js';
import { until } from '../../backend/assets/dashboard/format.js';
import { filterFrom } from '../../backend/assets/dashboard/list-filter.js';
import {
  choiceText, hasSeconds, leftOut, matchingSchedules, OVERLAPS, slotLine, slotTexts, stateOf, whenText,
} from '../../backend/assets/dashboard/schedule-facts.js';
import { statusLabel } from '../../backend/assets/dashboard/status.js';
import { failureText, isDelayed, placeInQueue, timeNotes } from '../../backend/assets/dashboard/waiting.js';

const NOW = Date.parse('2026-01-02T00:00:00Z');
const filter = (address) => filterFrom(new URLSearchParams(address));

test('the question and the request name the same operations', () => {
  const found = bulkFilter('retry', filter('status=failed&since=1h&label=a:b&offset=50'), NOW);
  assert.deepEqual(found, {
    status: 'failed', label: ['a:b'], created_after: '2026-01-01T23:00:00.000Z',
    created_before: '2026-01-02T00:00:02.000Z',
  });

  const bounded = bulkFilter('retry', filter('created_before=2026-01-01T00:00:00Z'), NOW);
  assert.deepEqual(bounded, { created_before: '2026-01-01T00:00:00Z' });
});

test('a cancel does not ask about what is cancelled already', () => {
  const { status } = bulkFilter('cancel', filter('schedule_id=nightly'), NOW);
  assert.deepEqual(status, ['pending', 'running', 'completed', 'failed']);
  assert.equal(bulkFilter('cancel', filter('status=running'), NOW).status, 'running');
});

test('it is done only for those that it can be done for', () => {
  const any = filter('label=a:b');
  assert.deepEqual(filterOfThose('retry', { label: ['a:b'] }, any),
    { label: ['a:b'], status: ['failed', 'cancelled'] });
  const chosen = filter('status=failed');
  assert.deepEqual(filterOfThose('retry', { status: 'failed' }, chosen), { status: 'failed' });
});

test('only what can be done for some status is offered', () => {
  const possible = (status) => ['cancel', 'retry'].filter((verb) => isPossible(verb, filter(`status=${status}`)));
  assert.deepEqual(['', 'pending', 'running', 'completed', 'failed', 'cancelled'].map(possible),
    [['cancel', 'retry'], ['cancel'], ['cancel'], [], ['retry'], ['retry']]);
});

const results = (able, refused, code = 'already_finished') => [
  ...Array.from({ length: able }, (_, at) => ({ operation_id: `a${at}`, status_code: 200 })),
  ...Array.from({ length: refused }, (_, at) => ({ operation_id: `r${at}`, status_code: 409, code })),
];

test('a question says how many match, and for how many it can be done', () => {
  const dry = { matched: 37, done: 0, has_more: false, results: results(32, 5) };
  const { refused, ...question } = questionOf('cancel', dry);
  assert.deepEqual(question, {
    text: '37 operations match. 32 can be cancelled. 5 cannot: ended already.', able: 32,
    button: 'Cancel 32 operations',
  });
  assert.equal(refused.length, 5);
  const one = questionOf('retry', { matched: 1, done: 0, has_more: false, results: results(1, 0) });
  assert.deepEqual([one.text, one.button], ['1 operation matches. 1 can be retried.', 'Retry 1 operation']);

  const none = questionOf('cancel', { matched: 2, done: 0, has_more: false, results: results(0, 2) });
  assert.deepEqual([none.text, none.able],
    ['2 operations match. None can be cancelled. 2 cannot: ended already.', 0]);
});

test('a question about more than one request can take says so, and refusals are told apart', () => {
  const mixed = [...results(998, 1), ...results(0, 1, 'odd_code')];
  const { text } = questionOf('cancel', { matched: 2500, done: 0, has_more: true, results: mixed });
  assert.equal(text, '2,500 operations match. This request is about 1,000 of them. 998 can be cancelled. '
    + '2 cannot: 1 ended already, 1 odd_code.');
});

test('what the backend warns of is said', () => {
  const dry = { matched: 1, done: 0, has_more: false, results: results(1, 0), warning: 'No archive.' };
  assert.ok(questionOf('retry', dry).text.endsWith(' No archive.'));
  assert.ok(outcomeOf('retry', dry).text.endsWith(' No archive.'));
});

test('an outcome has its counts and names those that were refused', () => {
  const done = { matched: 3, done: 2, has_more: true, results: results(2, 1) };
  const { text, refused } = outcomeOf('cancel', done);
  assert.equal(text, 'Cancelled, or asked to stop: 2 operations. Refused: 1. More operations match.');
  assert.deepEqual(refused.map((one) => [one.operation_id, reasonOf(one)]), [['r0', 'ended already']]);
  assert.equal(reasonOf({ operation_id: 'x', status_code: 503 }), 'HTTP 503');
});

test('an outcome says how many were asked to stop before', () => {
  const asked = results(2, 0).map((one) => ({ ...one, asked_before: true }));
  const done = { matched: 3, done: 1, has_more: false, results: [...results(1, 0), ...asked] };
  assert.equal(outcomeOf('cancel', done).text,
    'Cancelled, or asked to stop: 1 operation. 2 were asked to stop before and still run.');
  assert.equal(outcomeOf('cancel', { ...done, done: 3, results: results(3, 0) }).text,
    'Cancelled, or asked to stop: 3 operations.');
  assert.equal(outcomeOf('cancel', { ...done, done: 0, results: asked.slice(1) }).text,
    'Cancelled, or asked to stop: 0 operations. 1 was asked to stop before and still runs.');
});

test('those that were asked to stop before are not offered again', () => {
  const asked = results(2, 0).map((one) => ({ ...one, asked_before: true }));
  const dry = { matched: 3, done: 0, has_more: false, results: [...results(1, 0), ...asked] };
  const { text, able, button } = questionOf('cancel', dry);
  assert.deepEqual([text, able, button],
    ['3 operations match. 1 can be cancelled. 2 were asked to stop before and still run.', 1, 'Cancel 1 operation']);
});

const inSeconds = (seconds) => new Date(Date.now() + seconds * 1000).toISOString();
const pending = (more) => ({ status: 'pending', queue: 'any', attempt: 0, ...more });

test('a delayed operation says when it starts; a due one where it waits', () => {
  const delayed = pending({ start_at: inSeconds(240.4), expires_at: inSeconds(300) });
  assert.ok(isDelayed(delayed));
  assert.equal(statusLabel(delayed), 'delayed');
  assert.equal(placeInQueue(delayed), 'Starts in 4m 0s');
  assert.equal(timeNotes(delayed).length, 2);

  const due = pending({ start_at: inSeconds(-5), queue_position: 2 });
  assert.equal(statusLabel(due), 'pending');
  assert.equal(placeInQueue(due), 'Place 2 of the queue “any”');
  assert.deepEqual(timeNotes(due), []);
  assert.equal(placeInQueue(pending({})), 'Waits for a worker');
  // Once an attempt has started, it no longer expires.
  assert.deepEqual(timeNotes(pending({ attempt: 1, expires_at: inSeconds(9) })), []);
});

test('what expired says so, and other failures do not', () => {
  const failed = (code) => statusLabel({ status: 'failed', error: { code, message: '' } });
  assert.deepEqual([failed('expired'), failed('odd')], ['expired', 'failed']);
  const cancelling = pending({ start_at: inSeconds(9), cancel_requested_at: inSeconds(-1) });
  assert.equal(statusLabel(cancelling), 'cancelling');
});

test('what expired is told with a time for people, any other failure by its message', () => {
  const failed = (code, expiresAt) => failureText({
    status: 'failed', error: { code, message: '' }, error_message: 'as it is', expires_at: expiresAt,
  });

  assert.match(failed('expired', inSeconds(-5)), /^No attempt had started by .*\d{4}.*\.$/);
  assert.equal(failed('expired', null), 'as it is');
  assert.equal(failed('odd', inSeconds(-5)), 'as it is');
  assert.equal(failureText({ status: 'completed' }), '');
});

test('how long it takes until a time comes', () => {
  assert.equal(until(inSeconds(-3)), 'now');
  assert.equal(until(inSeconds(59.8)), 'in 1m 0s');
  assert.equal(until(null), '–');
});

test('a schedule says when in words, or as its line does', () => {
  assert.equal(whenText({ cron: '30 9 * * MON-FRI' }), '09:30 on weekdays');
  assert.equal(whenText({ cron: '*/5 * * * *' }), 'Every 5 minutes');
  assert.equal(whenText({ cron: '1-2/3 * * * *' }), '1-2/3 * * * *');
  assert.equal(choiceText(OVERLAPS, 'queue'), 'Wait until it has ended');
  assert.equal(choiceText(OVERLAPS, 'later'), 'later');
});

test('a slot is told in both time zones, once when they are the same', () => {
  const zone = Intl.DateTimeFormat().resolvedOptions().timeZone;
  assert.equal(slotTexts('2026-01-02T08:30:00Z', zone).length, 1);
  const other = zone === 'Asia/Tokyo' ? 'Europe/Berlin' : 'Asia/Tokyo';
  const [local, own] = slotTexts('2026-01-02T08:30:00Z', other);
  assert.ok(local.endsWith(zone) && own.endsWith(other), `${local} ${own}`);
  assert.ok(slotLine('2026-01-02T08:30:00Z', other).startsWith(`${local} (`));
  // The browser may not know the zone.
  assert.equal(slotTexts('2026-01-02T08:30:00Z', 'Mars/Olympus').length, 1);
});

test('a schedule that was refused says so everywhere, unless it is paused', () => {
  const error = { code: 'unknown_domain', message: '', at: '', slot: '' };
  const states = [{ paused: false, last_error: null }, { paused: true, last_error: error },
    { paused: false, last_error: error }].map(stateOf);

  assert.deepEqual(states, [['completed', 'on'], ['paused', 'paused'], ['failed', 'refused']]);
  assert.deepEqual([hasSeconds({ cron: '*/20 * * * * *' }), hasSeconds({ cron: ' 0  9 * * *' })],
    [true, false]);
});

test('a schedule that went on after a refusal is on', () => {
  const error = { code: 'storage_full', message: '', at: '', slot: '2026-01-02T10:00:00Z' };
  const after = (slot) => stateOf({ paused: false, last_error: error, last_run: { slot } });

  assert.deepEqual(after('2026-01-02T10:05:00Z'), ['completed', 'on']);
  assert.deepEqual(after('2026-01-02T09:55:00Z'), ['failed', 'refused']);
  assert.deepEqual(after(null), ['failed', 'refused']);
});

test('slots that became no operation are told with the reason', () => {
  assert.equal(leftOut({ skipped: 2 }), '2');
  assert.equal(leftOut({ skipped: 0, missed: 3 }), '0, and 3 that nobody could start in time');
});

test('schedules are found by what they are called and say', () => {
  const one = (id, cron) => ({ schedule_id: id, operation_type: 'dummy', cron, time_zone: 'UTC' });
  const all = [one('nightly', '30 9 * * MON-FRI'), one('tick', '* * * * * *')];
  const found = (search) => matchingSchedules(all, search).map((schedule) => schedule.schedule_id);
  assert.deepEqual([found(''), found(' Weekdays'), found('tick'), found('dummy'), found('x')],
    [['nightly', 'tick'], ['nightly'], ['tick'], ['nightly', 'tick'], []]);
});
