// The log lines of one operation: the newest ones, filtered by level and text, followed while it
// runs.
//
// Lines are asked for page by page and not taken from a stream: a browser has few connections per
// server, and the page has one for its events.

import { api } from './api.js';
import { h, setText, show } from './dom.js';
import { moment, timeOfDay } from './format.js';
import { atMostEvery, perFrame } from './throttle.js';

const PAGE = 1000;
// What a person may look through; the file of all lines is one request away.
const MOST_SHOWN = 2000;
const POLL_MS = 1000;

const LEVELS = ['trace', 'debug', 'info', 'warn', 'error'];

/**
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {(error: unknown) => void} onFailure
 */
export function logLines(id, signal, onFailure) {
  const search = h('input', {
    type: 'search', id: 'log-search', placeholder: 'Search these lines',
    'aria-label': 'Search log lines', oninput: () => draw(),
  });
  const level = h('select', {
    id: 'log-level', 'aria-label': 'Least important level', onchange: () => startOver(),
  }, h('option', { value: '' }, 'All levels'),
    LEVELS.slice(1).map((name) => h('option', { value: name }, `From ${name}`)));
  const follow = h('input', {
    type: 'checkbox', id: 'log-follow', checked: true, onchange: () => draw(),
  });
  const note = h('p', { class: 'muted', hidden: true });
  const box = h('div', { class: 'log-lines', role: 'log', tabindex: 0, 'aria-label': 'Log lines' });
  const element = h('section', { class: 'card', id: 'logs', hidden: true },
    h('header', null, h('h2', null, 'Log lines'),
      h('div', { class: 'log-tools' }, search, level, h('label', null, follow, ' Follow'))),
    note, box);

  /** @type {Api.LogLine[]} */
  let lines = [];
  /** @type {string | null} */
  let cursor = null;
  let left = 0;
  let generation = 0;
  // The generation that is shown: a new one is drawn even when it has no lines.
  let drawn = -1;

  const draw = perFrame(() => {
    // A level without lines must not hide the choice of another one.
    if (lines.length === 0 && level.value === '') {
      element.hidden = true;
      return;
    }
    element.hidden = false;
    const wanted = search.value.trim().toLowerCase();
    const shown = lines.filter((line) => matches(line, wanted));
    note.hidden = left === 0 && shown.length > 0;
    setText(note, shown.length === 0
      ? 'No line matches.' : `Of more lines, the newest ${lines.length} are here.`);
    const place = box.scrollTop;
    show(box, shown.map((line, at) => lineRow(line, shown[at - 1])));
    box.scrollTop = follow.checked ? box.scrollHeight : place;
  });

  function startOver() {
    generation += 1;
    lines = [];
    cursor = null;
    left = 0;
    refresh(true);
  }

  async function fetchNewPages() {
    const begun = generation;
    for (let hasMore = true; hasMore;) {
      const page = await api.logs(id, { cursor, level: level.value, limit: PAGE }, signal);
      if (begun !== generation) return;
      cursor = page.cursor;
      hasMore = page.has_more;
      if (page.lines.length === 0) continue;
      lines = lines.concat(page.lines);
      left += Math.max(0, lines.length - MOST_SHOWN);
      lines = lines.slice(-MOST_SHOWN);
      drawn = begun;
      draw();
    }
    if (drawn !== begun) {
      drawn = begun;
      draw();
    }
  }

  const refresh = atMostEvery(POLL_MS, async () => {
    try {
      await fetchNewPages();
    } catch (error) {
      if (!signal.aborted) onFailure(error);
    }
  });

  let isRunning = false;
  const timer = setInterval(() => {
    if (isRunning && !document.hidden && follow.checked) refresh();
  }, POLL_MS);

  return {
    element,
    refresh: () => refresh(),
    /** @param {Api.Operation} operation */
    update(operation) {
      isRunning = operation.status === 'running';
      if (cursor === null || !isRunning) refresh();
    },
    stop() {
      clearInterval(timer);
      refresh.stop();
    },
  };
}

/**
 * Whether a line has the text, in any case.
 * @param {Api.LogLine} line
 * @param {string} wanted in small letters
 */
function matches(line, wanted) {
  if (wanted === '') return true;
  const fields = line.fields ? JSON.stringify(line.fields) : '';
  return `${line.level} ${line.text} ${fields}`.toLowerCase().includes(wanted);
}

/**
 * @param {Api.LogLine} line
 * @param {Api.LogLine | undefined} before
 */
function lineRow(line, before) {
  const { timestamp, level, text, fields, attempt } = line;
  const isOther = before ? before.attempt !== attempt : attempt > 1;
  return [
    isOther && h('div', { class: 'log-attempt' }, `Attempt ${attempt} on ${line.worker_id}`),
    h('div', { class: 'log-line', 'data-level': level },
      h('time', { datetime: timestamp, title: moment(timestamp) }, timeOfDay(timestamp)), ' ',
      h('b', null, level), ' ',
      h('span', null, text),
      fields && Object.entries(fields).map(([name, value]) =>
        h('span', { class: 'log-field' }, ` ${name}=${JSON.stringify(value)}`))),
  ];
}
