// What waits and runs by worker type, on the overview, and the buttons that pause. The page of queues
// has each queue.

import { operationsAddress } from './addresses.js';
import { h, keyedList, setAttribute, setText, show } from './dom.js';
import { figureTable } from './figure-table.js';
import { count, duration, moment, title } from './format.js';
import { pauseButton } from './pause-dialog.js';
import { statusChip } from './status.js';

/** @typedef {import('./attention.js').Paused} Paused */

/**
 * The queues of one worker type together.
 * @typedef {object} OfType
 * @property {string} type
 * @property {number} waiting
 * @property {number} running
 * @property {number} delayed
 * @property {number | null} oldest in seconds
 * @property {Paused | undefined} paused
 */

/** @param {() => void} onChange called when somebody has paused or resumed queues */
export function queueTable(onChange) {
  const body = h('tbody');
  const rows = keyedList(body, (/** @type {OfType} */ { type }) => type, () => typeRow(onChange));
  const table = figureTable(['Type', 'Waiting', 'Running', 'Delayed', 'Oldest', ''], body);
  const empty = h('p', { class: 'empty', hidden: true });
  return {
    element: [h('div', { class: 'queue-sums' }, table), empty],
    /**
     * @param {Api.QueueOverview[]} queues
     * @param {Map<string, Paused>} paused by worker type
     * @param {Api.Stats['workers']} workers
     */
    set(queues, paused, workers) {
      rows.set(byType(queues, paused));
      empty.hidden = queues.length > 0;
      const isServed = workers.AVAILABLE + workers.BUSY > 0;
      setText(empty, isServed
        ? 'No operation has been queued yet.'
        : 'No worker is here, and no operation has been queued yet.');
    },
  };
}

/**
 * @param {Api.QueueOverview[]} queues
 * @param {Map<string, Paused>} paused
 * @returns {OfType[]}
 */
function byType(queues, paused) {
  /** @type {Map<string, OfType>} */
  const types = new Map();
  for (const { worker_type: type, waiting, running, delayed, oldest_seconds: oldest } of queues) {
    const sum = types.get(type)
      ?? { type, waiting: 0, running: 0, delayed: 0, oldest: null, paused: paused.get(type) };
    types.set(type, {
      ...sum,
      waiting: sum.waiting + waiting,
      running: sum.running + running,
      delayed: sum.delayed + delayed,
      oldest: oldest === null ? sum.oldest : Math.max(oldest, sum.oldest ?? 0),
    });
  }
  return [...types.values()];
}

/** @param {() => void} onChange */
function typeRow(onChange) {
  const name = h('th', { scope: 'row' });
  const waiting = h('td', { class: 'num' });
  const running = h('td', { class: 'num' });
  const delayed = h('td', { class: 'num' });
  const oldest = h('td', { class: 'num' });
  const actions = h('td', { class: 'actions' });
  let shownKey = '';

  /** @param {OfType} sum */
  function update(sum) {
    const { type, paused } = sum;
    const key = JSON.stringify([type, paused]);
    if (shownKey !== key) {
      shownKey = key;
      const address = operationsAddress({ operation_type: type, status: 'pending' });
      show(name, h('a', { href: address }, title(type)), ' ', paused && pausedChip(paused));
      show(actions, pauseButton(type, paused !== undefined, onChange));
    }
    for (const [cell, number] of /** @type {const} */ ([
      [waiting, sum.waiting], [running, sum.running], [delayed, sum.delayed],
    ])) {
      setText(cell, count(number));
      setAttribute(cell, 'data-zero', number === 0 ? 'yes' : null);
    }
    setText(oldest, sum.oldest === null ? '–' : duration(Math.round(sum.oldest)));
  }

  return { element: h('tr', null, name, waiting, running, delayed, oldest, actions), update };
}

/** @param {Paused} paused */
export function pausedChip({ until }) {
  const chip = statusChip();
  chip.update('paused');
  chip.element.title = until ? `Until ${moment(until)}` : 'Until somebody resumes it';
  return chip.element;
}
