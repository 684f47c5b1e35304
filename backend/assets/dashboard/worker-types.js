// The worker types, read once: schemas change seldom, and a page that shows ten results needs them
// ten times.

import { api } from './api.js';

/** @type {Map<string, Api.WorkerType>} */
const known = new Map();

/**
 * A worker type, or undefined when there is none of that name.
 * @param {string} name
 * @param {AbortSignal} signal
 * @returns {Promise<Api.WorkerType | undefined>}
 */
export async function workerTypeOf(name, signal) {
  if (!known.has(name)) {
    for (const type of await api.workerTypes(signal)) known.set(type.worker_type, type);
  }
  return known.get(name);
}
