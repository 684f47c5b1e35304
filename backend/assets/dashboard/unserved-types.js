// Worker types that nobody serves: a trial, or a name with a typo. They can be forgotten.

import { actionButton } from './action-button.js';
import { operationsAddress } from './addresses.js';
import { api, asApiError } from './api.js';
import { h, keyedList, setAttribute, setText } from './dom.js';
import { count, title } from './format.js';
import { liveStream } from './stream.js';
import { atMostEvery } from './throttle.js';
import { toast } from './toast.js';

/** @typedef {{ type: string, pending: number }} Unserved how many of its operations wait */

/** @param {AbortSignal} signal */
export function forgettableTypes(signal) {
  const list = h('ul', { class: 'unserved' });
  const element = h('section', { class: 'card', hidden: true },
    h('header', null, h('h2', null, 'Types without workers'),
      h('span', { class: 'muted' }, 'Operations of these types wait until a worker comes.')),
    list);
  const entries = keyedList(list, (/** @type {Unserved} */ { type }) => type, entry);

  const refresh = atMostEvery(1000, async () => {
    try {
      const [types, stats] = await Promise.all([api.workerTypes(signal), api.stats(signal)]);
      const pending = new Map(stats.by_type.map((one) => [one.worker_type, one.pending]));
      const unserved = types.filter((type) => type.workers === 0)
        .map(({ worker_type: type }) => ({ type, pending: pending.get(type) ?? 0 }));
      element.hidden = unserved.length === 0;
      entries.set(unserved);
    } catch (thrown) {
      if (!signal.aborted) liveStream.checkAfter(asApiError(thrown));
    }
  });
  signal.addEventListener('abort', () => refresh.stop(), { once: true });

  function entry() {
    const name = h('span');
    const waiting = h('a');
    const element = h('li', null, h('span', { class: 'chips' }, name, waiting));
    return {
      element,
      /** @param {Unserved} unserved */
      update({ type, pending }) {
        waiting.hidden = pending === 0;
        setText(waiting, `${count(pending)} pending`);
        setAttribute(waiting, 'href', operationsAddress({ operation_type: type, status: 'pending' }));
        if (element.dataset.type === type) return;
        setAttribute(element, 'data-type', type);
        setText(name, title(type));
        element.append(actionButton('Forget', type, 'small danger', async () => {
          await api.forgetType(type);
          toast(`Forgot ${title(type)}`);
          refresh(true);
        }, 'Really forget?'));
      },
    };
  }

  return { element, refresh: () => refresh() };
}
