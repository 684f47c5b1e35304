// All schedules: when they start what, what they started last, and what went wrong.

import { shortId } from './about.js';
import { NEW_SCHEDULE_ADDRESS, operationAddress, scheduleAddress } from './addresses.js';
import { showAge, showUntil } from './age.js';
import { api } from './api.js';
import { h, keyedList, setAttribute, setText, show } from './dom.js';
import { count, moment, title } from './format.js';
import { follow, refreshEvery } from './live-view.js';
import { problemLine } from './problem-line.js';
import { rowKeys } from './row-keys.js';
import { pauseOrResumeButton, runButton } from './schedule-actions.js';
import { hasSeconds, matchingSchedules, newestError, slotTexts, stateOf, whenText } from './schedule-facts.js';
import { skeletonBody } from './skeleton.js';
import { statusChip } from './status.js';
import { atMostEvery } from './throttle.js';

// No event tells of schedules, only of their operations.
const REFRESH_MS = 5000;

// There may be a thousand. Whoever looks for one of many, searches.
const MAX_SHOWN = 200;

const COLUMNS = ['Schedule', 'When', 'Next run', 'Last run', 'State'];

/** @param {ViewContext} context */
export default function schedulesView(context) {
  const { root, signal, keys } = context;
  const problem = problemLine();
  const loading = skeletonBody(COLUMNS.length + 1, 6);
  const body = h('tbody');
  const rows = keyedList(body, (/** @type {Api.Schedule} */ one) => one.schedule_id,
    () => scheduleRow(() => refresh(true)));
  const empty = h('p', { class: 'empty', hidden: true });
  const search = h('input', {
    id: 'schedule-search', type: 'search', placeholder: 'Id, type, time   /', autocomplete: 'off',
    spellcheck: 'false', maxlength: 128, 'aria-label': 'Search schedules', oninput: draw,
  });
  const range = h('span', { class: 'muted range' });
  /** @type {Api.Schedule[] | null} */
  let schedules = null;

  show(root,
    h('div', { class: 'page-head' }, h('h1', null, 'Schedules'),
      h('a', { class: 'button', href: NEW_SCHEDULE_ADDRESS }, 'New schedule')),
    problem.element,
    h('div', { class: 'filters' }, search, h('span', { class: 'grow' }), range),
    h('section', { class: 'card flush' },
      h('div', { class: 'scroll' },
        h('table', { class: 'grid schedules as-cards' },
          h('caption', { class: 'unseen' }, 'Schedules by id'),
          h('thead', null, h('tr', null,
            COLUMNS.map((name) => h('th', { scope: 'col' }, name)),
            h('th', { scope: 'col' }, h('span', { class: 'unseen' }, 'Actions')))),
          loading, body)),
      empty));
  keys(rowKeys(body).slice(0, 2));

  function draw() {
    if (schedules === null) return;
    const found = matchingSchedules(schedules, search.value);
    const shown = found.slice(0, MAX_SHOWN);
    rows.set(shown);
    setText(range, `${count(shown.length)} of ${count(schedules.length)}`);
    empty.hidden = shown.length > 0;
    if (empty.hidden) return;
    show(empty, schedules.length > 0 ? 'No schedule has this text in it.'
      : ['No schedule is here yet. ', h('a', { href: NEW_SCHEDULE_ADDRESS }, 'Make one.')]);
  }

  const refresh = atMostEvery(1000, async () => {
    try {
      schedules = await api.schedules(signal);
      problem.clear();
      loading.remove();
      draw();
    } catch (thrown) {
      if (!signal.aborted) problem.show(thrown);
    }
  });

  follow(context, '/api/v1/events', {
    operation: (operation) => {
      if (operation.schedule_id) refresh();
    },
  }, refresh);
  const stopRepeating = refreshEvery(REFRESH_MS, refresh);
  return () => {
    stopRepeating();
    refresh.stop();
  };
}

/** @param {() => void} onChange */
function scheduleRow(onChange) {
  const name = h('a', { class: 'op-about' });
  const type = h('span', { class: 'op-type' });
  const when = h('span');
  const line = h('code', { class: 'muted' });
  const next = nextRun();
  const last = lastRun();
  const chip = statusChip();
  const error = h('span', { class: 'said' });
  const actions = h('td', { class: 'actions' });
  const element = h('tr', null,
    h('th', { scope: 'row' }, h('div', { class: 'stack' }, name, type)),
    h('td', { 'data-label': 'When' }, h('div', { class: 'stack' }, when, line)),
    h('td', { 'data-label': 'Next run' }, next.element),
    h('td', { 'data-label': 'Last run' }, last.element),
    h('td', { 'data-label': 'State' }, h('div', { class: 'stack' }, chip.element, error)),
    actions);
  let shown = '';

  /** @param {Api.Schedule} schedule */
  function update(schedule) {
    const { schedule_id: id, paused } = schedule;
    const lastError = newestError(schedule);
    setAttribute(element, 'data-id', id);
    setText(name, id);
    setAttribute(name, 'title', id);
    setAttribute(name, 'href', scheduleAddress(id));
    setText(type, title(schedule.operation_type));
    setText(when, whenText(schedule));
    setText(line, `${schedule.cron} · ${schedule.time_zone}`);
    next.update(schedule);
    last.update(schedule);

    chip.update(...stateOf(schedule));
    setText(error, lastError?.message ?? '');
    error.title = lastError ? `${moment(lastError.at)}: ${lastError.message}` : '';

    if (shown === String(paused)) return;
    shown = String(paused);
    show(actions, h('div', { class: 'buttons' }, runButton(id, 'small', onChange),
      pauseOrResumeButton(schedule, 'small', onChange)));
  }

  return { element, update };
}

/** When it starts something next. */
export function nextRun() {
  const soon = h('span');
  const times = h('span', { class: 'muted stack' });
  let shown = '';
  return {
    element: h('div', { class: 'stack' }, soon, times),
    /** @param {Api.Schedule} schedule */
    update(schedule) {
      const { next_runs: [slot], time_zone: zone } = schedule;
      const key = `${slot} ${zone}`;
      if (key === shown) return;
      shown = key;
      soon.hidden = slot === undefined;
      if (slot !== undefined) showUntil(soon, slot);
      show(times, slot === undefined ? 'None while it is paused'
        : slotTexts(slot, zone, hasSeconds(schedule)).map((text) => h('span', null, text)));
    },
  };
}

/** The operation that it started last. */
export function lastRun() {
  const link = h('a', { class: 'op-id' });
  const age = h('span', { class: 'muted' });
  const none = h('span', { class: 'muted' }, 'None yet');
  return {
    element: h('div', { class: 'stack' }, link, age, none),
    /** @param {Api.Schedule} schedule */
    update({ last_run: run, schedule_id: id }) {
      link.hidden = age.hidden = run === null;
      none.hidden = run !== null;
      if (run === null) return;
      const { operation_id: operationId, slot } = run;
      // The name of the schedule is said already.
      setText(link, slot === null ? `${shortId(operationId)}, by hand`
        : operationId.startsWith(`${id}-`) ? operationId.slice(id.length + 1) : operationId);
      setAttribute(link, 'href', operationAddress(operationId));
      setAttribute(link, 'title', operationId);
      showAge(age, run.at);
    },
  };
}
