// Asks until when the queues of a worker type are to be paused.

import { actionButton } from './action-button.js';
import { api, asApiError } from './api.js';
import { h, setText, show } from './dom.js';
import { localTime, moment, title } from './format.js';
import { serverNow } from './server-clock.js';
import { toast } from './toast.js';

const AT_A_TIME = 'at';

/** @type {[string, string][]} seconds, label */
const CHOICES = [
  ['', 'Until somebody resumes it'], ['900', 'For 15 minutes'], ['3600', 'For an hour'],
  ['28800', 'For 8 hours'], [AT_A_TIME, 'Until …'],
];

/**
 * A button that pauses or resumes all queues of a worker type.
 * @param {string} type
 * @param {boolean} isPaused
 * @param {() => void} onChange
 */
export function pauseButton(type, isPaused, onChange) {
  if (isPaused) {
    return actionButton('Resume', title(type), 'small', async () => {
      await api.unpause(type);
      toast(`Resumed all queues of ${title(type)}`);
      onChange();
    });
  }
  return h('button', {
    type: 'button', class: 'button small', 'aria-label': `Pause ${title(type)}`,
    'aria-haspopup': 'dialog', 'data-action': 'pause', onclick: () => askUntil(type, onChange),
  }, 'Pause…');
}

/**
 * @param {string} type
 * @param {() => void} onChange
 */
function askUntil(type, onChange) {
  const choice = h('select', { id: 'pause-until' },
    CHOICES.map(([value, label]) => h('option', { value }, label)));
  const at = h('input', {
    id: 'pause-at', type: 'datetime-local', 'aria-label': 'End of the pause', hidden: true,
    value: localTime(serverNow() + 3600_000),
  });
  choice.addEventListener('change', () => {
    at.hidden = choice.value !== AT_A_TIME;
    if (!at.hidden) at.focus();
  });

  /** @returns {string | null} */
  function until() {
    if (choice.value === '') return null;
    if (choice.value !== AT_A_TIME) {
      return new Date(serverNow() + Number(choice.value) * 1000).toISOString();
    }
    const end = new Date(at.value);
    if (!(end.getTime() > serverNow())) throw new Error('Enter a time to come');
    return end.toISOString();
  }

  // Messages at the edge of the page are behind the dialog.
  const problem = h('p', { class: 'field-error', role: 'alert' });
  const pause = actionButton('Pause', `all queues of ${title(type)}`, 'primary', async () => {
    setText(problem, '');
    try {
      const end = until();
      await api.pause(type, end);
      dialog.close();
      toast(`Paused all queues of ${title(type)}${end ? ` until ${moment(end)}` : ''}`);
      onChange();
    } catch (thrown) {
      const error = asApiError(thrown);
      if (error.scope !== undefined) throw error;
      setText(problem, error.violations[0]?.message ?? error.message);
    }
  });
  // The button that opens this has the name already.
  pause.setAttribute('data-action', 'confirm-pause');
  const dialog = h('dialog', {
    class: 'card ask-dialog', 'aria-labelledby': 'pause-title', onclose: () => dialog.remove(),
  });
  show(dialog,
    h('h2', { id: 'pause-title' }, `Pause ${title(type)}`),
    h('p', { class: 'muted' }, 'No operation of this type starts, in none of its queues. '
      + 'What runs goes on; new starts are accepted and wait.'),
    h('div', { class: 'field' }, h('label', { for: choice.id }, 'How long'), choice, at, problem),
    h('div', { class: 'buttons' }, pause, h('button', {
      type: 'button', class: 'button', onclick: () => dialog.close(),
    }, 'Do not pause')));
  document.body.append(dialog);
  dialog.showModal();
}
