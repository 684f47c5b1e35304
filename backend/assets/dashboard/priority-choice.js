// The priority of an operation that waits, which can be changed.

import { api, asApiError } from './api.js';
import { h, setText } from './dom.js';
import { liveStream } from './stream.js';
import { toast } from './toast.js';

const USUAL = 3;

/** @type {[number, string][]} */
const CHOICES = [[1, '1, the first'], [2, '2'], [3, '3, as usual'], [4, '4'], [5, '5, the last']];

/** @param {string} id of the operation */
export function priorityChoice(id) {
  const select = h('select', { id: 'priority', onchange: change },
    CHOICES.map(([value, label]) => h('option', { value: String(value) }, label)));
  const refusal = h('span', { class: 'field-error', role: 'alert' });
  const element = h('span', { class: 'priority', hidden: true },
    h('label', { for: select.id }, 'Priority'), select, refusal);
  let current = USUAL;
  select.value = String(current);

  async function change() {
    const wanted = Number(select.value);
    select.disabled = true;
    setText(refusal, '');
    try {
      await api.setPriority(id, wanted);
      current = wanted;
      toast(`The priority is ${wanted} now`);
    } catch (thrown) {
      const error = asApiError(thrown);
      liveStream.checkAfter(error);
      if (error.scope === undefined) toast(error.message, 'error');
      else setText(refusal, `Needs the scope ${error.scope}`);
    }
    select.disabled = false;
    select.value = String(current);
    select.focus();
  }

  return {
    element,
    /** @param {Api.Operation} operation */
    update({ status, queue, priority = USUAL }) {
      // What was sent to a worker directly waits in no queue.
      element.hidden = status !== 'pending' || queue === 'direct';
      if (select.disabled || current === priority) return;
      current = priority;
      select.value = String(priority);
    },
  };
}
