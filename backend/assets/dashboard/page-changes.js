// What events change on a page of operations.

import { count } from './format.js';
import { isNewer } from './status.js';

/**
 * The newer of the page's document and the one that came as an event, if any.
 * @param {Api.Operation} fetched
 * @param {Api.Operation | undefined} arrived
 */
export function newerOf(fetched, arrived) {
  return arrived && isNewer(arrived, fetched) ? arrived : fetched;
}

/**
 * 26–50 of 1,234
 * @param {number} offset
 * @param {number} end
 * @param {number} total
 */
export function pageRange(offset, end, total) {
  return total === 0 ? 'None' : `${count(offset + 1)}–${count(end)} of ${count(total)}`;
}

/** Changes since the last frame, by operation id. However many come, each row is drawn once. */
export class RowChanges {
  /** @type {Map<string, { document?: Api.Operation, progress?: Api.Progress }>} */
  #changes = new Map();

  /** @param {Api.Operation} document */
  addDocument(document) {
    this.#changes.set(document.operation_id, { document });
  }

  /**
   * @param {string} id
   * @param {Api.Progress} progress
   */
  addProgress(id, progress) {
    const { document } = this.#changes.get(id) ?? {};
    const change = document ? { document: { ...document, progress } } : { progress };
    this.#changes.set(id, change);
  }

  /** All changes; none are left. */
  take() {
    const taken = [...this.#changes];
    this.#changes.clear();
    return taken;
  }

  clear() {
    this.#changes.clear();
  }
}
