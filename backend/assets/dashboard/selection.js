// Operations that somebody has picked in the list.

import { h, setAttribute } from './dom.js';

export class Selection {
  /** @type {Set<string>} */
  #ids = new Set();
  #onChange;

  /** @param {() => void} onChange */
  constructor(onChange) {
    this.#onChange = onChange;
  }

  get ids() {
    return [...this.#ids];
  }

  /** A checkbox for one operation after the other, as rows have them. */
  box() {
    let id = '';
    const element = h('input', {
      type: 'checkbox', class: 'pick', onchange: () => {
        if (element.checked) this.#ids.add(id);
        else this.#ids.delete(id);
        this.#onChange();
      },
    });
    return {
      element,
      /**
       * @param {string} next
       * @param {string} about
       */
      update: (next, about) => {
        id = next;
        setAttribute(element, 'aria-label', `Pick ${about}`);
        element.checked = this.#ids.has(id);
      },
    };
  }

  /**
   * Drops all that are not among these.
   * @param {string[]} shown
   */
  keep(shown) {
    this.#ids = new Set(shown.filter((id) => this.#ids.has(id)));
    this.#onChange();
  }
}
