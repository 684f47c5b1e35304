// Why no worker runs a pending operation.
//
// The backend says this once, as the warning of a start. For an operation that waits, it is told
// from the list of workers. `meetsRequirements` repeats the rule of `Requirements::met_by` in
// shared/protocol/src/requirements.rs.

import { count } from './format.js';

/**
 * Whether a worker may run it. A capability that is not stated is not assumed.
 * @param {Api.Requirements} requirements
 * @param {Api.Capabilities} capabilities
 */
export function meetsRequirements({ gpu, cores, memory_gb: memory }, capabilities) {
  return (!gpu || capabilities.gpu)
    && (!cores || (capabilities.cores ?? 0) >= cores)
    && (!memory || (capabilities.memory_gb ?? 0) >= memory);
}

/**
 * Why none of the workers of its type can run it. Empty when one can, even if that worker is busy.
 * @param {string} workerType
 * @param {Api.Worker[]} workers
 * @param {Api.Requirements} requirements
 */
export function whyNoWorker(workerType, workers, requirements) {
  if (workers.length === 0) {
    return `No worker of the type ${workerType} is here; it waits until there is one.`;
  }
  const heard = workers.filter((worker) => worker.status !== 'TEMPORARILY_UNAVAILABLE');
  if (heard.length === 0) {
    return `No worker of the type ${workerType} answers; it waits until one does.`;
  }
  if (heard.some((worker) => meetsRequirements(requirements, worker.capabilities))) return '';

  return `No worker of the type ${workerType} has what it asks for (${describe(requirements)}); `
    + 'it waits until there is one.';
}

/** @param {Api.Requirements} requirements */
function describe({ gpu, cores, memory_gb: memory }) {
  const parts = [];
  if (gpu) parts.push('a GPU');
  if (cores) parts.push(`${count(cores)} ${cores === 1 ? 'core' : 'cores'}`);
  if (memory) parts.push(`${count(memory)} GiB of memory`);
  return parts.join(', ');
}
