// Single keys as shortcuts, and the list of them. They do nothing while somebody types.

import { h, setText, show } from './dom.js';
import { tabStorage } from './tab-storage.js';

/**
 * @typedef {object} Shortcut
 * @property {string} key one key, or two one after the other: `g o`
 * @property {string} what for the list
 * @property {() => void} act
 */

const SECOND_KEY_MS = 1200;
// Kept only when they are off.
const OFF = 'ktrdr-keys-off';

/** @param {EventTarget | null} target */
function isTyping(target) {
  return target instanceof HTMLElement
    && (target.isContentEditable || target.matches('input, select, textarea'));
}

export class Keys {
  #always;
  /** @type {Shortcut[]} */
  #ofView = [];
  #first = '';
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #isOff = tabStorage()?.getItem(OFF) === 'yes';
  /** @type {HTMLDialogElement | undefined} */
  #dialog;

  /** @param {Shortcut[]} always the shortcuts of every view */
  constructor(always) {
    this.#always = [...always, { key: '?', what: 'Show this list', act: () => this.showList() }];
    addEventListener('keydown', (event) => this.#take(event));
  }

  /**
   * Sets the shortcuts of the view that is shown.
   * @param {Shortcut[]} shortcuts
   */
  setView(shortcuts) {
    this.#ofView = shortcuts;
    this.#first = '';
  }

  showList() {
    this.#dialog ??= this.#makeDialog();
    const list = this.#dialog.querySelector('dl');
    if (list) {
      show(list, [...this.#ofView, ...this.#always].map(({ key, what }) => [
        h('dt', null, key.split(' ').map((one) => h('kbd', null, one))), h('dd', null, what)]));
    }
    if (!this.#dialog.open) this.#dialog.showModal();
  }

  #makeDialog() {
    const toggle = h('button', { type: 'button', class: 'button', onclick: () => {
      this.#isOff = !this.#isOff;
      if (this.#isOff) tabStorage()?.setItem(OFF, 'yes');
      else tabStorage()?.removeItem(OFF);
      label();
    } });
    const label = () =>
      setText(toggle, this.#isOff ? 'Turn these keys on' : 'Turn these keys off');
    label();
    const dialog = h('dialog', { class: 'card keys-dialog', 'aria-labelledby': 'keys-title' },
      h('h2', { id: 'keys-title' }, 'Keys'),
      h('dl', { class: 'pairs' }),
      h('div', { class: 'buttons' },
        h('button', {
          type: 'button', class: 'button primary', autofocus: true, onclick: () => dialog.close(),
        }, 'Close'), toggle));
    document.body.append(dialog);
    return dialog;
  }

  /** @param {KeyboardEvent} event */
  #take(event) {
    const isForOthers = event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented;
    if (isForOthers || isTyping(event.target) || document.querySelector('dialog[open]')) return;
    // The list stays within reach: it has the button that turns the others on again.
    if (this.#isOff && event.key !== '?') return;

    const pressed = this.#first === '' ? event.key : `${this.#first} ${event.key}`;
    clearTimeout(this.#timer);
    this.#first = '';
    const all = [...this.#ofView, ...this.#always];
    const found = all.find(({ key }) => key === pressed);
    if (found) {
      event.preventDefault();
      found.act();
    } else if (all.some(({ key }) => key.startsWith(`${pressed} `))) {
      this.#first = pressed;
      this.#timer = setTimeout(() => { this.#first = ''; }, SECOND_KEY_MS);
    }
  }
}
