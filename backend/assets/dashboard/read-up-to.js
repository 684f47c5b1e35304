// Reads an answer of unknown size into memory.

/**
 * @param {Response} response
 * @param {number} limit in bytes
 * @returns {Promise<Blob | null>} null when the body is larger than the limit. Then the rest of it
 *   is not read.
 * @throws {TypeError} when the connection breaks
 */
export async function readUpTo(response, limit) {
  const reader = response.body?.getReader();
  /** @type {Uint8Array[]} */
  const chunks = [];
  let size = 0;
  while (reader) {
    const { done, value } = await reader.read();
    if (done) break;

    size += value.byteLength;
    if (size > limit) {
      await reader.cancel();
      return null;
    }
    chunks.push(value);
  }
  return new Blob(chunks, { type: response.headers.get('content-type') ?? '' });
}
