// What can be done for the operations that somebody has picked.

import { actionButton } from './action-button.js';
import { api, asApiError } from './api.js';
import { isAble, outcomeOf } from './bulk.js';
import { h, show } from './dom.js';
import { count } from './format.js';
import { RequestKey } from './request-key.js';

/** @typedef {import('./bulk.js').Verb} Verb */

// Requests that are under way at a time.
const UNDER_WAY = 4;

/**
 * @param {() => void} pickNone
 * @param {(outcome: ReturnType<typeof outcomeOf>) => void} onDone
 */
export function pickedBar(pickNone, onDone) {
  const element = h('div', { class: 'bulk-offer', hidden: true });
  // Of retries whose answer did not come: who retries them again means the same operations.
  /** @type {Map<string, RequestKey>} */
  const keys = new Map();
  let shown = '';

  /**
   * @param {Verb} verb
   * @param {string[]} ids
   */
  async function perform(verb, ids) {
    /** @type {Api.OneByFilter[]} */
    const results = [];
    for (let at = 0; at < ids.length; at += UNDER_WAY) {
      const some = ids.slice(at, at + UNDER_WAY).map((id) => performOne(verb, id, keys));
      results.push(...await Promise.all(some));
    }
    const done = results.filter(({ code }) => code === undefined).length;
    pickNone();
    onDone(outcomeOf(verb, { matched: ids.length, done, has_more: false, results }));
  }

  /**
   * @param {Verb} verb
   * @param {string} label
   * @param {Api.Operation[]} operations
   */
  function button(verb, label, operations) {
    const able = operations.filter((one) => isAble(verb, one)).map((one) => one.operation_id);
    if (able.length === 0) return null;
    const isCancel = verb === 'cancel';
    return actionButton(`${label} ${count(able.length)}`, 'that were picked',
      isCancel ? 'small danger' : 'small', () => perform(verb, able),
      isCancel ? 'Really cancel?' : undefined);
  }

  return {
    element,
    /** @param {Api.Operation[]} operations */
    set(operations) {
      element.hidden = operations.length === 0;
      const key = JSON.stringify(operations.map((one) =>
        [one.operation_id, isAble('cancel', one), isAble('retry', one)]));
      // Somebody may be about to press one.
      if (key === shown) return;
      shown = key;
      show(element, h('span', { class: 'muted' }, `${count(operations.length)} picked:`),
        button('cancel', 'Cancel', operations), button('retry', 'Retry', operations),
        h('button', { type: 'button', class: 'button small', onclick: pickNone }, 'Pick none'));
    },
  };
}

/**
 * What becomes of one operation. A token that may not do it may do it for none.
 * @param {Verb} verb
 * @param {string} id
 * @param {Map<string, RequestKey>} keys of retries, by id
 * @returns {Promise<Api.OneByFilter>}
 */
async function performOne(verb, id, keys) {
  const key = keys.get(id) ?? new RequestKey();
  keys.set(id, key);
  try {
    if (verb === 'cancel') await api.cancel(id);
    else await api.retry(id, key.of(id));
    keys.delete(id);
    return { operation_id: id, status_code: 200 };
  } catch (thrown) {
    const error = asApiError(thrown);
    if (error.scope !== undefined) throw error;
    return { operation_id: id, status_code: error.status, code: error.code ?? error.message };
  }
}
