// The place of a question about many operations, and of what became of them.

import { shortId } from './about.js';
import { operationAddress } from './addresses.js';
import { reasonOf } from './bulk.js';
import { h, setText, show } from './dom.js';
import { count } from './format.js';

// More refused operations than anybody reads one by one.
const MAX_LISTED = 100;

/** @param {() => void} onClose called when the user closes it */
export function bulkPanel(onClose) {
  const text = h('p', { class: 'bulk-text', tabindex: -1, role: 'status' });
  const list = h('div', { class: 'bulk-refused' });
  const buttons = h('div', { class: 'buttons' });
  const element = h('div', { class: 'bulk-panel', hidden: true }, text, buttons, list);
  element.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') onClose();
  });

  return {
    element,
    /**
     * @param {string} shown
     * @param {Api.OneByFilter[]} refused
     * @param {Child} action
     * @param {string} close the label of the button that closes it
     */
    show(shown, refused, action, close = 'Close') {
      setText(text, shown);
      show(list, refused.length > 0 && refusedList(refused));
      show(buttons, action,
        h('button', { type: 'button', class: 'button small', onclick: onClose }, close));
      element.hidden = false;
    },
    /** Not a button: whoever presses Enter twice has not read the question. */
    focus: () => text.focus(),
  };
}

/** @param {Api.OneByFilter[]} refused */
function refusedList(refused) {
  const items = refused.slice(0, MAX_LISTED).map((one) => h('li', null,
    h('a', { class: 'op-id', href: operationAddress(one.operation_id), title: one.operation_id },
      shortId(one.operation_id)),
    ' ', h('span', { class: 'muted' }, reasonOf(one))));
  const left = refused.length - MAX_LISTED;
  return h('details', null, h('summary', null, 'Which ones, and why'),
    h('ul', null, items, left > 0 && h('li', { class: 'muted' }, `and ${count(left)} more`)));
}
