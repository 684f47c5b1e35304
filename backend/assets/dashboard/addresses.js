// Addresses of the views. They can be kept and shared.

/** @param {string} id */
export const operationAddress = (id) => `#/operations/${encodeURIComponent(id)}`;

/**
 * The list with a filter. An offset of 0 and empty texts are left out; a list names each of its
 * texts.
 * @param {Record<string, string | number | string[]>} filter
 */
export function operationsAddress(filter) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(filter)) {
    const values = Array.isArray(value) ? value : [value];
    for (const one of values) if (one !== '' && one !== 0) query.append(name, String(one));
  }
  const written = query.toString();
  return written === '' ? '#/operations' : `#/operations?${written}`;
}

/**
 * The list of the operations with a label.
 * @param {string} name
 * @param {string} value
 */
export const labelAddress = (name, value) => operationsAddress({ label: [`${name}:${value}`] });

/** @param {string} workerType */
export const startAddress = (workerType) => `#/start/${encodeURIComponent(workerType)}`;

/**
 * The form of a worker type, filled in as another operation was started.
 * @param {string} workerType
 * @param {string} id
 */
export const startLikeAddress = (workerType, id) =>
  `${startAddress(workerType)}?like=${encodeURIComponent(id)}`;

/** @param {string} id */
export const workerAddress = (id) => `#/workers/${encodeURIComponent(id)}`;

/** @param {string} id */
export const scheduleAddress = (id) => `#/schedules/${encodeURIComponent(id)}`;

/** @param {string} id */
export const scheduleFormAddress = (id) => `${scheduleAddress(id)}/edit`;

/** The form of a new schedule. */
export const NEW_SCHEDULE_ADDRESS = '#/new-schedule';

/**
 * The form of a new schedule that starts what an operation was started with.
 * @param {string} id
 */
export const scheduleLikeAddress = (id) => `${NEW_SCHEDULE_ADDRESS}?like=${encodeURIComponent(id)}`;
