// Addresses of the views. They can be kept and shared.

/** @param {string} id */
export const operationAddress = (id) => `#/operations/${encodeURIComponent(id)}`;

/**
 * The list with a filter. An offset of 0 and empty texts are left out.
 * @param {Record<string, string | number>} filter
 */
export function operationsAddress(filter) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(filter)) {
    if (value !== '' && value !== 0) query.set(name, String(value));
  }
  const written = query.toString();
  return written === '' ? '#/operations' : `#/operations?${written}`;
}

/** @param {string} workerType */
export const startAddress = (workerType) => `#/start/${encodeURIComponent(workerType)}`;
