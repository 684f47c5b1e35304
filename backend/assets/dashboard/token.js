// The token of this tab. It says who the user is, and goes with every request. Only the tab's own
// storage keeps it: other tabs, other origins and later visits do not see it. It never gets into an
// address, a text of the page, or the console.

import { tabStorage } from './tab-storage.js';

const KEY = 'ktrdr-token';

/**
 * Why an answer refuses the token, or null when it does not.
 * @param {number} status
 * @param {Api.Problem | null} problem the body
 */
export function refusalOf(status, problem) {
  // A proxy in front may ask for a password of its own. That is not about the token.
  const isUnknown = status === 401 && problem?.code === 'unauthorized';
  const isForbidden = status === 403 && problem?.code === 'forbidden';
  return isUnknown || isForbidden ? problem?.error ?? 'The server refused the token' : null;
}

/**
 * The header that carries a token. Without one there is none.
 * @param {string | null} value
 * @returns {Record<string, string>}
 */
export function authorization(value) {
  return value === null ? {} : { authorization: `Bearer ${value}` };
}

export class TabToken {
  #storage;
  /**
   * The token that this page knows. Another page of the tab may have changed it since.
   * @type {string | null}
   */
  #known;
  /** @type {string | null} */
  #refusal = null;
  /** @type {Set<() => void>} */
  #listeners = new Set();

  /** @param {Storage | null} storage null when the browser allows none: then the page keeps it */
  constructor(storage) {
    this.#storage = storage;
    this.#known = storage?.getItem(KEY) ?? null;
  }

  get value() {
    return this.#storage === null ? this.#known : this.#storage.getItem(KEY);
  }

  /** Whether the server asks for a token, and this tab has none that it takes. */
  get isWanted() {
    return this.#refusal !== null;
  }

  /** Whether the server asks for tokens, as far as this tab knows. */
  get isUsed() {
    return this.value !== null || this.isWanted;
  }

  /** Why a token is wanted. Empty when there was none before. */
  get refusal() {
    return this.#refusal ?? '';
  }

  /**
   * Calls back when the server refuses the token, and when the tab gets another one.
   * @param {() => void} callback
   */
  onChange(callback) {
    this.#listeners.add(callback);
  }

  /** @param {string} value */
  take(value) {
    this.#storage?.setItem(KEY, value);
    this.#known = value;
    this.#refusal = null;
    this.#notify();
  }

  /** Forgets the token. The page that has shown data with it must be left. */
  forget() {
    this.#storage?.removeItem(KEY);
    this.#known = null;
  }

  /**
   * The server refused a request.
   * @param {string | null} used the token of that request
   * @param {string} reason
   */
  refuse(used, reason) {
    // The answer is about a token that this tab has no more.
    if (used !== this.value) return;

    if (used !== null) {
      this.forget();
      this.#refusal = reason;
    }
    this.#refusal ??= '';
    this.#notify();
  }

  /** Whether another page of the tab has changed the token: what is shown may be of another one. */
  get isOutdated() {
    return this.value !== this.#known;
  }

  /**
   * Waits while a token is wanted.
   * @param {AbortSignal} [signal]
   * @returns {Promise<void>} rejected when the signal is aborted
   */
  usable(signal) {
    if (!this.isWanted) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const stop = () => this.#listeners.delete(check);
      const abort = () => {
        stop();
        reject(signal?.reason);
      };
      const check = () => {
        if (this.isWanted) return;
        stop();
        signal?.removeEventListener('abort', abort);
        resolve();
      };
      this.#listeners.add(check);
      if (signal?.aborted) abort();
      else signal?.addEventListener('abort', abort, { once: true });
    });
  }

  #notify() {
    for (const callback of [...this.#listeners]) callback();
  }
}

export const tabToken = new TabToken(tabStorage());
