// A button that sends a request, and says why it was refused.

import { asApiError } from './api.js';
import { askBefore } from './confirm.js';
import { h, setText } from './dom.js';
import { liveStream } from './stream.js';
import { toast } from './toast.js';

/**
 * @param {string} label
 * @param {string} id of what it acts on, for screen readers
 * @param {string} classes
 * @param {() => Promise<void>} act
 * @param {string} [question] asked before the button acts
 */
export function actionButton(label, id, classes, act, question) {
  const button = h('button', {
    type: 'button', class: `button ${classes}`, 'aria-label': `${label} ${id}`,
    'data-action': label.toLowerCase(),
  }, label);
  const isConfirmed = question ? askBefore(button, question, id) : () => true;
  const refusal = h('p', { class: 'field-error', role: 'alert' });

  button.addEventListener('click', async (event) => {
    if (!isConfirmed(event)) return;
    button.disabled = true;
    refusal.remove();
    try {
      await act();
    } catch (thrown) {
      complain(asApiError(thrown));
    }
    button.disabled = false;
  });

  /** @param {import('./api.js').ApiError} error */
  function complain(error) {
    liveStream.checkAfter(error);
    if (error.scope === undefined) {
      toast(error.message, 'error');
      return;
    }
    // The next press does not help either, so it stays beside the button.
    setText(refusal, `Needs the scope ${error.scope}`);
    button.after(refusal);
  }

  return button;
}
