// The keys that make a repeated request start nothing twice.

/** A new key. `crypto.randomUUID` is missing where the page came over plain HTTP. */
function newKey() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return [...bytes].map((byte) => byte.toString(16).padStart(2, '0')).join('');
}

/**
 * The `Idempotency-Key` of what a user starts at one place. It stays the same until the backend has
 * accepted the request: somebody who presses again because no answer came means the same operation.
 */
export class RequestKey {
  #key = newKey();
  /** @type {string | null} */
  #request = null;

  /**
   * The key of a request. Another request has another one.
   * @param {string} request
   */
  of(request) {
    if (this.#request !== null && this.#request !== request) this.#key = newKey();
    this.#request = request;
    return this.#key;
  }

  /** The request was accepted: the next one is another operation, though it may look the same. */
  accepted() {
    this.#key = newKey();
    this.#request = null;
  }
}
