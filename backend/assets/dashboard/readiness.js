// Asks /ready whether backend and NATS are there: often while something is wrong, seldom while all
// is well.

import { asApiError, call } from './api.js';

const TIMEOUT_MS = 5000;

export class ReadinessCheck {
  #isAsking = false;
  #isWantedAgain = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #onResult;
  #intervalMs;

  /**
   * @param {(problem: import('./api.js').ApiError | null) => void} onResult called with each
   *   result, null when ready
   * @param {() => number} intervalMs how long to wait for the next regular check
   */
  constructor(onResult, intervalMs) {
    this.#onResult = onResult;
    this.#intervalMs = intervalMs;
    this.#plan();
  }

  /** Asks now, or once more after the request that is under way. */
  async ask() {
    if (this.#isAsking) {
      this.#isWantedAgain = true;
      return;
    }

    this.#isAsking = true;
    clearTimeout(this.#timer);
    let problem = null;
    try {
      await call('GET', '/ready', { timeoutMs: TIMEOUT_MS, isOpen: true });
    } catch (error) {
      problem = asApiError(error);
    }
    this.#isAsking = false;
    this.#onResult(problem);

    if (this.#isWantedAgain) {
      this.#isWantedAgain = false;
      this.ask();
    } else {
      this.#plan();
    }
  }

  #plan() {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      if (document.hidden) this.#plan();
      else this.ask();
    }, this.#intervalMs());
  }
}
