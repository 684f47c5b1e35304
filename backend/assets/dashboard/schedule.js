// One schedule: when it starts something, what, and what became of its operations.

import { operationsAddress, scheduleFormAddress } from './addresses.js';
import { showAge } from './age.js';
import { api } from './api.js';
import { copyButton } from './copy.js';
import { h, setText, show } from './dom.js';
import { count, moment, title } from './format.js';
import { howItRuns } from './how-it-runs.js';
import { icon } from './icons.js';
import { jsonView } from './json-view.js';
import { follow, refreshEvery } from './live-view.js';
import { isNotFound, partsOf } from './not-found.js';
import { COLUMN_COUNT, operationRows, tableHead } from './operation-row.js';
import { problemLine } from './problem-line.js';
import { rowKeys } from './row-keys.js';
import { deleteButton, pauseOrResumeButton, runButton } from './schedule-actions.js';
import {
  CATCH_UPS, OVERLAPS, choiceText, hasSeconds, leftOut, slotLine, stateOf, whenText,
} from './schedule-facts.js';
import { lastRun } from './schedules.js';
import { skeletonBody, skeletonLines } from './skeleton.js';
import { statusChip } from './status.js';
import { atMostEvery } from './throttle.js';

const NEWEST = 20;
const REFRESH_MS = 5000;

/** @param {ViewContext} context */
export default function scheduleView(context) {
  const { root, signal, argument = '', setTitle, keys } = context;
  const id = argument;
  const head = scheduleHead(id, () => refresh(true));
  const problem = problemLine();
  const refusal = h('div', { class: 'problem', hidden: true });
  const loadingFacts = skeletonLines(5);
  const facts = scheduleFacts();
  const parameters = h('div');
  const columns = h('div', { class: 'columns', hidden: true },
    h('section', { class: 'card', id: 'schedule' },
      h('header', null, facts.when), facts.element),
    h('section', { class: 'card' }, h('header', null, h('h2', null, 'What it starts')), parameters));
  const loading = skeletonBody(COLUMN_COUNT, 4);
  const body = h('tbody');
  const rows = operationRows(body);
  const empty = h('p', { class: 'empty', hidden: true }, 'It has started nothing that is retained.');

  const back = h('a', { class: 'back', href: '#/schedules' }, icon('back'), 'Schedules');
  const showParts = partsOf(root, [
    back, head.element, problem.element, refusal, loadingFacts, columns,
    h('section', { class: 'card flush' },
      h('header', null, h('h2', null, 'Newest operations'),
        h('a', { href: operationsAddress({ schedule_id: id }) }, 'All that it started')),
      h('div', { class: 'scroll' },
        h('table', { class: 'grid rows' }, tableHead(), loading, body)),
      empty),
  ], [back, problem.element]);
  setTitle(id);
  keys(rowKeys(body));
  let shownBody = '';

  const refresh = atMostEvery(1000, async () => {
    const [schedule, page] = await Promise.allSettled([
      api.schedule(id, signal), api.operations({ schedule_id: id, limit: NEWEST }, signal),
    ]);
    if (signal.aborted) return;
    loading.remove();
    loadingFacts.hidden = true;
    const failed = [schedule, page].find((one) => one.status === 'rejected');
    if (failed?.status === 'rejected') problem.show(failed.reason);
    else problem.clear();
    showParts(!isNotFound(schedule, page));
    if (schedule.status === 'fulfilled') draw(schedule.value);
    if (page.status === 'fulfilled') {
      rows.set(page.value.operations);
      empty.hidden = page.value.operations.length > 0;
    }
  });

  /** @param {Api.Schedule} schedule */
  function draw(schedule) {
    columns.hidden = false;
    head.update(schedule);
    facts.update(schedule);
    const { last_error: error } = schedule;
    refusal.hidden = error === null;
    if (error) {
      show(refusal, icon('failed'), h('div', null,
        h('strong', null, `The slot at ${moment(error.slot)} was refused: ${error.code}`),
        h('p', null, error.message)));
    }
    // What somebody has opened in it stays open.
    const written = JSON.stringify(schedule.body);
    if (written === shownBody) return;
    shownBody = written;
    const { execution, ...own } = schedule.body;
    show(parameters, jsonView(own), howItRuns(execution));
  }

  follow(context, '/api/v1/events', {
    operation: (operation) => {
      if (operation.schedule_id === id || rows.get(operation.operation_id)) refresh();
    },
    progress: (event) => rows.get(event.operation_id)?.setProgress(event.progress),
  }, refresh);
  const stopRepeating = refreshEvery(REFRESH_MS, refresh);
  return () => {
    stopRepeating();
    refresh.stop();
  };
}

/**
 * @param {string} id
 * @param {() => void} onChange
 */
function scheduleHead(id, onChange) {
  const type = h('span', { class: 'muted' });
  const chip = statusChip();
  const actions = h('div', { class: 'actions' });
  let shown = '';
  return {
    element: h('div', { class: 'page-head op-head' },
      h('div', null,
        h('h1', { class: 'op-id-title' }, id, ' ', copyButton('the id', () => id)), type),
      h('div', { class: 'chips' }, chip.element, actions)),
    /** @param {Api.Schedule} schedule */
    update(schedule) {
      const { paused } = schedule;
      setText(type, title(schedule.operation_type));
      chip.update(...stateOf(schedule));
      if (shown === String(paused)) return;
      shown = String(paused);
      show(actions, runButton(id, '', onChange), pauseOrResumeButton(schedule, '', onChange),
        h('a', { class: 'button', href: scheduleFormAddress(id) }, 'Change'),
        deleteButton(id, () => { location.hash = '#/schedules'; }));
    },
  };
}

function scheduleFacts() {
  const when = h('h2');
  const line = h('code');
  const zone = h('span');
  const next = h('ol', { class: 'slots' });
  const last = lastRun();
  const overlap = h('span');
  const catchUp = h('span');
  const waiting = h('span');
  const skipped = h('span');
  const written = h('span');
  /** @type {[string, Child][]} */
  const pairs = [
    ['Cron line', line], ['Time zone', zone], ['Next runs', next],
    ['Last run', last.element], ['While the last one has not ended', overlap],
    ['Slots that were missed', catchUp], ['Slots that wait', waiting], ['Left out', skipped],
    ['Written', written],
  ];
  return {
    when,
    element: h('dl', { class: 'pairs' },
      pairs.map(([label, value]) => h('div', null, h('dt', null, label), h('dd', null, value)))),
    /** @param {Api.Schedule} schedule */
    update(schedule) {
      setText(when, whenText(schedule));
      setText(line, schedule.cron);
      setText(zone, schedule.time_zone);
      const slots = schedule.next_runs.map((slot) => 
        slotLine(slot, schedule.time_zone, hasSeconds(schedule)));
      if (next.dataset.slots !== slots.join()) {
        next.dataset.slots = slots.join();
        show(next, slots.length > 0 ? slots.map((text) => h('li', null, text))
          : h('li', null, 'None while it is paused'));
      }
      last.update(schedule);
      setText(overlap, choiceText(OVERLAPS, schedule.overlap));
      setText(catchUp, choiceText(CATCH_UPS, schedule.catch_up));
      setText(waiting, count(schedule.waiting_slots ?? 0));
      setText(skipped, leftOut(schedule));
      showAge(written, schedule.updated_at);
      if (schedule.created_by) setText(written, `${moment(schedule.updated_at)} by ${schedule.created_by}`);
    },
  };
}
