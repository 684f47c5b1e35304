// The labels of an operation. Each leads to the list of the operations with it.

import { labelAddress } from './addresses.js';
import { h, setAttribute, show } from './dom.js';

/** @param {number} most how many are shown; of the others only the number */
export function labelLinks(most = Infinity) {
  const element = h('div', { class: 'tags', hidden: true, 'aria-label': 'Labels', role: 'group' });
  return {
    element,
    /** @param {Pick<Api.Operation, 'execution'>} operation */
    update({ execution }) {
      const pairs = Object.entries(execution?.labels ?? {});
      // They never change.
      if (!element.hidden || pairs.length === 0) return;
      element.hidden = false;
      show(element, pairs.slice(0, most).map(labelLink), pairs.length > most && h('span', {
        class: 'tag', title: pairs.slice(most).map(([name, value]) => `${name}: ${value}`).join('\n'),
      }, `+${pairs.length - most}`));
    },
  };
}

/** @param {[string, string]} pair */
function labelLink([name, value]) {
  const link = h('a', { class: 'tag', href: labelAddress(name, value), title: `${name}: ${value}` },
    `${name}: ${value}`);
  setAttribute(link, 'data-label', `${name}:${value}`);
  return link;
}
