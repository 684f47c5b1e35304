// Worker types that nobody serves: a trial, or a name with a typo. They can be forgotten.

import { actionButton } from './action-button.js';
import { api, asApiError } from './api.js';
import { h, keyedList, setAttribute, setText } from './dom.js';
import { title } from './format.js';
import { liveStream } from './stream.js';
import { atMostEvery } from './throttle.js';
import { toast } from './toast.js';

/** @param {AbortSignal} signal */
export function forgettableTypes(signal) {
  const list = h('ul', { class: 'unserved' });
  const element = h('section', { class: 'card', hidden: true },
    h('header', null, h('h2', null, 'Types without workers'),
      h('span', { class: 'muted' }, 'Operations of these types wait until a worker comes.')),
    list);
  const entries = keyedList(list, (/** @type {string} */ type) => type, entry);

  const refresh = atMostEvery(1000, async () => {
    try {
      const types = await api.workerTypes(signal);
      const unserved = types.filter((type) => type.workers === 0);
      element.hidden = unserved.length === 0;
      entries.set(unserved.map((type) => type.worker_type));
    } catch (thrown) {
      if (!signal.aborted) liveStream.checkAfter(asApiError(thrown));
    }
  });
  signal.addEventListener('abort', () => refresh.stop(), { once: true });

  function entry() {
    const name = h('span');
    const element = h('li', null, name);
    return {
      element,
      /** @param {string} type */
      update(type) {
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
