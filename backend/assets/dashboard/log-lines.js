// The log lines of one operation: the newest ones, filtered by level and text, followed while it
// runs.
//
// Lines are asked for page by page and not taken from a stream: a browser has few connections per
// server, and the page has one for its events.

import { api } from './api.js';
import { h, keyedList, setText } from './dom.js';
import { moment, timeOfDay } from './format.js';
import { isTerminal } from './status.js';
import { atMostEvery, perFrame } from './throttle.js';

const PAGE = 1000;
// What a person may look through; the file of all lines is one request away.
const MOST_SHOWN = 2000;
const POLL_MS = 1000;

/**
 * A line with its number among all that came, or the heading before it.
 * @typedef {{ number: number, line: Api.LogLine }} Numbered
 * @typedef {{ key: string, line: Api.LogLine, isHeading: boolean }} Entry
 */

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
  const followLabel = h('label', null, follow, 'Follow');
  const note = h('p', { class: 'muted', hidden: true });
  const box = h('div', { class: 'log-lines', role: 'log', tabindex: 0, 'aria-label': 'Log lines' });
  const element = h('section', { class: 'card', id: 'logs', hidden: true },
    h('header', null, h('h2', null, 'Log lines'),
      h('div', { class: 'log-tools' }, search, level, followLabel)),
    note, box);

  // Elements stay: who selects lines while others come keeps what is selected.
  const rows = keyedList(box, (/** @type {Entry} */ { key }) => key, entryRow);

  /** @type {Numbered[]} */
  let lines = [];
  let received = 0;
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
    const shown = lines.filter(({ line }) => matches(line, wanted));
    note.hidden = left === 0 && shown.length > 0;
    setText(note, shown.length === 0
      ? 'No line matches.' : `Of more lines, the newest ${lines.length} are here.`);
    const place = box.scrollTop;
    rows.set(shown.flatMap((one, at) => entriesOf(one, shown[at - 1])));
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
      lines = lines.concat(page.lines.map((line, at) => ({ number: received + at, line })));
      received += page.lines.length;
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
      followLabel.hidden = isTerminal(operation.status);
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
 * A line, and before the first one of a further attempt its heading.
 * @param {Numbered} one
 * @param {Numbered | undefined} before
 * @returns {Entry[]}
 */
function entriesOf({ number, line }, before) {
  const isOther = before ? before.line.attempt !== line.attempt : line.attempt > 1;
  const entry = { key: `${number}`, line, isHeading: false };
  return isOther ? [{ key: `before ${number}`, line, isHeading: true }, entry] : [entry];
}

/** @param {Entry} entry */
function entryRow({ line, isHeading }) {
  const { timestamp, level, text, fields, attempt } = line;
  const element = isHeading
    ? h('div', { class: 'log-attempt' }, `Attempt ${attempt} on ${line.worker_id}`)
    : h('div', { class: 'log-line', 'data-level': level },
      h('time', { datetime: timestamp, title: moment(timestamp) }, timeOfDay(timestamp)), ' ',
      h('b', null, level), ' ',
      h('span', null, text),
      fields && Object.entries(fields).map(([name, value]) =>
        h('span', { class: 'log-field' }, ` ${name}=${JSON.stringify(value)}`)));
  // A line never changes.
  return { element, update() {} };
}
