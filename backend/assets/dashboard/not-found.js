// What a view of one thing shows while there is no such thing: the way back and the reason, and no
// empty shells.

import { asApiError } from './api.js';
import { show } from './dom.js';

/**
 * Shows all parts.
 * @param {HTMLElement} root
 * @param {HTMLElement[]} parts
 * @param {HTMLElement[]} kept those that are shown when nothing is found
 * @returns {(isFound: boolean) => void} keeps the elements: what is found later is shown in them
 */
export function partsOf(root, parts, kept) {
  let wasFound = true;
  show(root, parts);
  return (isFound) => {
    if (isFound === wasFound) return;
    wasFound = isFound;
    show(root, isFound ? parts : kept);
  };
}

/**
 * Whether there is no such thing, and nothing that it has left: operations stay when their schedule
 * or worker has gone.
 * @param {PromiseSettledResult<unknown>} thing
 * @param {PromiseSettledResult<Api.OperationPage>} operations
 */
export const isNotFound = (thing, operations) =>
  thing.status === 'rejected' && asApiError(thing.reason).status === 404
    && operations.status === 'fulfilled' && operations.value.operations.length === 0;
