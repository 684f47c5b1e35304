// One operation as a row of a table, and what can be done with one.

import { api } from './api.js';
import { attr, h, statusChip, text, toast } from './dom.js';
import { ageing, duration, now, percent, title } from './format.js';
import { doubt } from './live.js';

// How long a button waits for the second press.
const SURE = 6000;

export const isOver = (status) => status === 'completed' || status === 'failed' || status === 'cancelled';

// Of two documents of one operation, whether the first says more. Progress is timed by another clock than the end is.
export const isNewer = (one, other) => one.updated_at > other.updated_at && (isOver(one.status) || !isOver(other.status));

export function tableHead() {
  return h('thead', null, h('tr', null,
    ['Operation', 'Status', 'Progress', 'Worker', 'Created', 'Took'].map((name) => h('th', { scope: 'col' }, name)),
    h('th', { scope: 'col' }, h('span', { class: 'unseen' }, 'Actions'))));
}

export function progressBar(label) {
  const fill = h('i');
  const value = h('span', { class: 'bar-value' });
  const track = h('div', { class: 'bar', role: 'progressbar', 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-label': label }, fill);
  return {
    element: h('div', { class: 'progress' }, track, value),
    set(percentage, status) {
      const known = Number.isFinite(percentage) ? Math.min(100, Math.max(0, percentage)) : 0;
      fill.style.transform = `scaleX(${known / 100})`;
      attr(track, 'aria-valuenow', Math.round(known));
      attr(track, 'data-status', status);
      text(value, percent(known));
    },
  };
}

export function operationRow() {
  const link = h('a', { class: 'op-id' });
  const type = h('span', { class: 'op-type' });
  const chip = statusChip();
  const step = h('span', { class: 'step' });
  const bar = progressBar('Progress');
  const worker = h('td', { class: 'worker', 'data-label': 'Worker' });
  const created = h('span');
  const took = h('td', { class: 'num-left', 'data-label': 'Took' });
  const actions = h('td', { class: 'actions' });
  const showActions = actionsIn(actions, 'small');
  let current = {};
  const row = {
    element: h('tr', null,
      h('th', { scope: 'row' }, link, type), h('td', { class: 'cell-status' }, chip.element),
      h('td', { class: 'cell-progress' }, bar.element, step), worker,
      h('td', { 'data-label': 'Created' }, created), took, actions),
    document: () => current,
    update(operation) {
      current = operation;
      const { operation_id: id, status } = operation;
      attr(row.element, 'data-id', id);
      attr(row.element, 'data-status', status);
      attr(link, 'href', `#/operations/${encodeURIComponent(id)}`);
      text(link, id);
      text(type, title(operation.operation_type));
      const asked = operation.cancel_requested_at && !isOver(status);
      chip.update(status, asked ? 'cancelling' : status);
      row.progress(operation.progress);
      text(worker, operation.worker_id ?? (operation.queue_position ? `#${operation.queue_position} in ${operation.queue}` : '–'));
      ageing(created, operation.created_at);
      const running = status === 'running' ? (now() - Date.parse(operation.started_at)) / 1000 : operation.duration_seconds;
      text(took, duration(running));
      showActions(operation);
    },
    progress(progress) {
      current = { ...current, progress };
      bar.set(progress?.percentage, current.status);
      text(step, current.error_message ?? progress?.current_step ?? '');
    },
  };
  return row;
}

// Keeps the buttons in `parent` as long as they stay the right ones: somebody may be about to press one.
export function actionsIn(parent, size = '') {
  let shown = '';
  return (operation) => {
    const { operation_id: id, status, cancel_requested_at: asked } = operation;
    const wanted = JSON.stringify([id, isOver(status), status === 'completed', Boolean(asked), operation.attempt > 0]);
    if (wanted === shown) return;
    shown = wanted;
    parent.replaceChildren(...actionButtons(operation, size));
  };
}

// Cancel while it can be, retry once it has not completed.
function actionButtons(operation, size) {
  const { operation_id: id, status } = operation;
  const button = (label, kind, work, question) => {
    const element = h('button', { type: 'button', class: `button ${kind} ${size}`, 'aria-label': `${label} ${id}`, onclick: async (event) => {
      if (sure && !sure(event)) return;
      element.disabled = true;
      try {
        await work();
      } catch (error) {
        doubt(error);
        toast(error.message, 'error');
      }
      element.disabled = false;
    } }, label);
    const sure = question && asking(element, question, id);
    return element;
  };
  if (!isOver(status)) {
    if (operation.cancel_requested_at) {
      const waiting = h('button', { type: 'button', class: `button ${size}`, disabled: true }, 'Cancelling…');
      return [waiting];
    }
    return [button('Cancel', 'danger', async () => {
      await api.cancel(id);
      toast(`Cancel of ${id} was asked for`);
    }, 'Really cancel?')];
  }
  if (status === 'completed') return [];
  const again = (ask, word) => async () => {
    const answer = await ask(id);
    const next = answer?.operation_id;
    toast(answer?.warning ?? `${word} as ${next}`, answer?.warning ? 'warn' : 'info');
    if (next) location.hash = `#/operations/${encodeURIComponent(next)}`;
  };
  const buttons = [button('Retry', '', again(api.retry, 'Retried'))];
  // Where there is room for it: from the newest checkpoint, if it left one.
  if (size === '' && operation.attempt > 0) buttons.push(button('Resume', '', again(api.resume, 'Resumed')));
  return buttons;
}

// For a button that must be pressed twice, because rows move and what it does cannot be undone: the first press makes it ask.
function asking(element, question, id) {
  const [label, name] = [element.textContent, element.getAttribute('aria-label')];
  let timer = 0;
  const calm = () => {
    clearTimeout(timer);
    timer = 0;
    text(element, label);
    attr(element, 'aria-label', name);
    element.style.whiteSpace = '';
  };
  element.addEventListener('blur', calm);
  return (event) => {
    // The second half of a double click is no answer.
    if (timer !== 0 && event.detail < 2) {
      calm();
      return true;
    }
    clearTimeout(timer);
    timer = setTimeout(calm, SURE);
    text(element, question);
    attr(element, 'aria-label', `${question} ${id}`);
    // It is longer than what tables have room for in one line.
    element.style.whiteSpace = 'normal';
    return false;
  };
}
