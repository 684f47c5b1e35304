// Cancels or retries everything that the filter of the list names, after a question from a dry run; or
// the operations that somebody has picked.

import { actionButton } from './action-button.js';
import { api } from './api.js';
import { bulkFilter, filterOfThose, isPossible, outcomeOf, questionOf } from './bulk.js';
import { bulkPanel } from './bulk-panel.js';
import { h, setText } from './dom.js';
import { count } from './format.js';
import { isFiltered } from './list-filter.js';
import { pickedBar } from './picked-bar.js';
import { RequestKey } from './request-key.js';
import { serverNow } from './server-clock.js';

/** @typedef {import('./bulk.js').Verb} Verb */

/**
 * @param {import('./list-filter.js').Filter} filter the one of the view
 * @param {() => void} onDone called when operations were cancelled or retried
 * @param {() => void} pickNone
 */
export function bulkBar(filter, onDone, pickNone) {
  const about = h('span', { class: 'muted' });
  const cancel = askButton('cancel', 'Cancel all…');
  const retry = askButton('retry', 'Retry all…');
  const offer = h('div', { class: 'bulk-offer' }, about, cancel, retry);
  const panel = bulkPanel(close);
  const picked = pickedBar(pickNone, ({ text, refused }) => {
    onDone();
    question += 1;
    open(text, refused, null);
  });
  const element = h('section', { class: 'bulk', 'aria-label': 'Many operations at once' },
    picked.element, offer, panel.element);
  // An answer to an earlier question, which the filter has left behind, is not shown.
  let question = 0;

  /**
   * @param {Verb} verb
   * @param {string} label
   */
  function askButton(verb, label) {
    return actionButton(label, 'operations that match', 'small', () => ask(verb));
  }

  /** @param {Verb} verb */
  async function ask(verb) {
    question += 1;
    const asked = question;
    const wanted = bulkFilter(verb, filter, serverNow());
    const found = await api.byFilter(verb, wanted, true);
    if (asked !== question) return;

    const { text, able, button, refused } = questionOf(verb, found);
    const those = filterOfThose(verb, wanted, filter);
    const key = new RequestKey();
    const classes = verb === 'cancel' ? 'small danger' : 'small primary';
    const act = able > 0
      && actionButton(button, 'that match', classes, () => perform(verb, those, key));
    open(text, refused, act, able > 0 ? 'Change nothing' : 'Close');
  }

  /**
   * @param {Verb} verb
   * @param {Record<string, string | string[]>} wanted
   * @param {RequestKey} key
   */
  async function perform(verb, wanted, key) {
    const asked = question;
    const done = await api.byFilter(verb, wanted, false, key.of(verb));
    key.accepted();
    onDone();
    if (asked !== question) return;

    const { text, refused } = outcomeOf(verb, done);
    const goOn = done.has_more && done.done > 0
      && actionButton('Ask about the others', 'that match', 'small', () => ask(verb));
    open(text, refused, goOn);
  }

  /**
   * @param {string} text
   * @param {Api.OneByFilter[]} refused
   * @param {Child} action
   * @param {string} [closeLabel]
   */
  function open(text, refused, action, closeLabel) {
    panel.show(text, refused, action, closeLabel);
    updateVisibility();
    panel.focus();
  }

  function close() {
    question += 1;
    const hadFocus = panel.element.contains(document.activeElement);
    panel.element.hidden = true;
    updateVisibility();
    const first = offer.querySelector('button:not([hidden])');
    if (hadFocus && first instanceof HTMLElement) first.focus();
  }

  /** Without a filter there is no "all that match": nobody cancels everything by mistake. */
  function updateVisibility() {
    const isOpen = !panel.element.hidden;
    const isPicking = !picked.element.hidden;
    offer.hidden = isOpen || isPicking || !isFiltered(filter) || (cancel.hidden && retry.hidden);
    element.hidden = offer.hidden && !isOpen && !isPicking;
  }

  /** The filter has changed: another question. */
  function update() {
    close();
    cancel.hidden = !isPossible('cancel', filter);
    retry.hidden = !isPossible('retry', filter);
    updateVisibility();
    setTotal(0);
  }

  /** @param {number} total how many operations match; 0: not known */
  function setTotal(total) {
    const all = total === 0 ? 'All that match:' : `All ${count(total)} that match:`;
    setText(about, total === 1 ? 'The one that matches:' : all);
    offer.toggleAttribute('inert', total === 0);
  }

  /** @param {Api.Operation[]} operations */
  function setPicked(operations) {
    picked.set(operations);
    updateVisibility();
  }

  update();
  return { element, update, setTotal, setPicked };
}
