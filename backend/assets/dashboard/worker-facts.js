// What a worker's document says, for people.

/**
 * The order of names: w9 stands before w10. One collator for all: to make one takes longer than to
 * compare two names with it.
 */
export const inOrder = new Intl.Collator(undefined, { numeric: true }).compare;

/** @type {Record<Api.WorkerStatus, string>} */
export const WORKER_STATUS_LABELS = {
  AVAILABLE: 'available', BUSY: 'busy', DRAINING: 'draining', TEMPORARILY_UNAVAILABLE: 'silent',
};

// A free worker pulls all the time. One that sends heartbeats but has not pulled for this long gets
// no work.
const MAX_SECONDS_WITHOUT_PULL = 90;

/**
 * Whether a free worker sends heartbeats, but does not pull.
 * @param {Api.Worker} worker
 * @param {number} now milliseconds since 1970
 */
export function isNotPulling(worker, now) {
  if (worker.status !== 'AVAILABLE') return false;
  const pulledAt = Date.parse(worker.last_pull_at ?? worker.registered_at);
  return Number.isFinite(pulledAt) && (now - pulledAt) / 1000 > MAX_SECONDS_WITHOUT_PULL;
}

/**
 * Workers that need attention first: silent ones, then those that do not pull, then by type and id.
 * @param {Api.Worker[]} workers
 * @param {number} now
 */
export function sortedByNeed(workers, now) {
  const rank = (/** @type {Api.Worker} */ worker) => {
    if (worker.status === 'TEMPORARILY_UNAVAILABLE') return 0;
    return isNotPulling(worker, now) ? 1 : 2;
  };
  return [...workers].sort((a, b) => rank(a) - rank(b)
    || inOrder(a.worker_type, b.worker_type) || inOrder(a.worker_id, b.worker_id));
}

/** @param {Api.Worker} worker */
export function capabilityLabels({ capabilities, slots }) {
  const { gpu, cores, memory_gb: memory, ...others } = capabilities;
  const labels = [gpu ? 'GPU' : 'CPU only'];
  if (cores) labels.push(`${cores} cores`);
  if (memory) labels.push(`${memory} GiB`);
  if (slots > 1) labels.push(`${slots} slots`);

  for (const [name, value] of Object.entries(others)) {
    labels.push(`${name}: ${typeof value === 'object' ? JSON.stringify(value) : value}`);
  }
  return labels;
}
