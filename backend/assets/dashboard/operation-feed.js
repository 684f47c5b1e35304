// Keeps the view of one operation up to date: fetches the document, follows its events, and repeats
// what failed.
//
// While the operation runs, its own event stream brings changes and progress. What no event tells is
// asked for at an interval: whether the worker of a running operation is there, whether the type of a
// pending one is paused, which worker could run it, and whether it waits for a permit. When the
// operation has ended, the page listens to a stream that only shows whether the backend is there.

import { ApiError, api, asApiError, operationPath } from './api.js';
import { whyPaused } from './attention.js';
import { whyNoWorker } from './requirements.js';
import { isNewer, isTerminal } from './status.js';
import { QUIET_STREAM, liveStream } from './stream.js';

const RETRY_MS = 3000;
const POLL_MS = 5000;

/**
 * @typedef {object} FeedHandlers
 * @property {(operation: Api.Operation) => void} operation a new document
 * @property {(operation: Api.Operation) => void} progress the same document with new progress
 * @property {(event: Api.MetricsEvent) => void} metrics
 * @property {(text: string) => void} warning the backend's, about the worker that runs it
 * @property {(text: string) => void} blocked why it does not start
 * @property {() => void} ended no more events come
 * @property {() => void} reloaded events may have been missed
 * @property {(message: string) => void} unavailable there is no document
 */

export class OperationFeed {
  /** @type {Api.Operation | null} */
  #current = null;
  #followedUrl = '';
  #isLoading = false;
  #isReloadWanted = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #retryTimer;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  #pollTimer;

  /**
   * @param {string} id
   * @param {AbortSignal} signal
   * @param {ViewContext['listen']} listen
   * @param {FeedHandlers} handlers
   */
  constructor(id, signal, listen, handlers) {
    this.id = id;
    this.signal = signal;
    this.listen = listen;
    this.handlers = handlers;
  }

  start() {
    this.reload();
    this.#pollTimer = setInterval(() => this.#poll(), POLL_MS);
  }

  stop() {
    clearInterval(this.#pollTimer);
    clearTimeout(this.#retryTimer);
  }

  /**
   * Reloads after a while when a request failed for a temporary cause. That may happen although the
   * connection is fine: right after a start of NATS, reads can fail.
   * @param {unknown} thrown
   * @returns {boolean} whether the cause is temporary
   */
  retryAfter(thrown) {
    const error = asApiError(thrown);
    liveStream.checkAfter(error);
    if (!error.isTemporary) return false;

    clearTimeout(this.#retryTimer);
    this.#retryTimer = setTimeout(() => this.reload(), RETRY_MS);
    return true;
  }

  /** Fetches the document and what is shown beside it. */
  reload() {
    return this.#load(true);
  }

  /** @param {boolean} withRest whether to fetch history and metrics too */
  async #load(withRest) {
    if (this.signal.aborted) return;
    if (this.#isLoading) {
      this.#isReloadWanted ||= withRest;
      return;
    }

    this.#isLoading = true;
    try {
      const { data: document, warning } = await api.operation(this.id, this.signal);
      this.#takeDocument(document, warning ?? '');
      if (withRest) this.handlers.reloaded();
    } catch (thrown) {
      if (this.signal.aborted) return;
      this.#takeFailure(asApiError(thrown));
    } finally {
      this.#isLoading = false;
      if (this.#isReloadWanted) {
        this.#isReloadWanted = false;
        this.reload();
      }
    }
  }

  /**
   * @param {Api.Operation} document
   * @param {string} warning
   */
  #takeDocument(document, warning) {
    if (!this.#current || !isNewer(this.#current, document)) {
      this.handlers.warning(warning);
      this.#receive(document);
    }

    const { status } = this.#current ?? document;
    if (!isTerminal(status)) this.#followOperation();
    if (status === 'pending') this.#askWhyItWaits();
  }

  /** @param {ApiError} error */
  #takeFailure(error) {
    const isMissing = error.status === 404;
    if (!this.#current || isMissing) this.handlers.unavailable(error.message);

    if (isMissing) {
      this.#follow(QUIET_STREAM);
      return;
    }
    liveStream.checkAfter(error);
    if (!this.#current || !isTerminal(this.#current.status)) this.#followOperation();
  }

  /** @param {Api.Operation} document */
  #receive(document) {
    this.#current = document;
    this.handlers.operation(document);
    if (isTerminal(document.status)) {
      this.handlers.ended();
      this.#follow('/api/v1/events');
    }
  }

  /**
   * @param {string} url
   * @param {StreamHandlers} handlers
   */
  #follow(url, handlers = {}) {
    if (url === this.#followedUrl || this.signal.aborted) return;
    this.#followedUrl = url;
    this.listen(url, {
      open: (missed) => {
        if (missed || !this.#current) this.reload();
      },
      reset: () => this.reload(),
      ...handlers,
    });
  }

  #followOperation() {
    this.#follow(`${operationPath(this.id)}/events`, {
      // The operation may have been removed.
      refused: () => this.reload(),
      operation: (document) => this.#receive(document),
      progress: (event) => this.#takeProgress(event),
      metrics: this.handlers.metrics,
    });
  }

  /** @param {Api.ProgressEvent} event */
  #takeProgress({ attempt, progress }) {
    const current = this.#current;
    if (!current || attempt !== current.attempt || isTerminal(current.status)) return;
    this.#current = { ...current, progress };
    this.handlers.progress(this.#current);
  }

  #poll() {
    if (document.hidden || !this.#current) return;
    const { status, execution } = this.#current;
    // No event tells that a permit is free or gone. Whoever loads a pending operation asks the rest, too.
    const mayWaitForPermit = status === 'pending' && execution?.concurrency;
    if (status === 'running' || mayWaitForPermit) this.#load(false);
    else if (status === 'pending') this.#askWhyItWaits();
  }

  async #askWhyItWaits() {
    // An operation that was started on a worker directly waits for that worker.
    if (!this.#current || this.#current.queue === 'direct') return;

    const { operation_type: workerType, execution } = this.#current;
    try {
      const [queues, workers] = await Promise.all([
        api.queues(this.signal), api.workers(this.signal, workerType),
      ]);
      if (this.#current.status !== 'pending') return;
      this.handlers.blocked(whyPaused(workerType, queues)
        || whyNoWorker(workerType, workers, execution?.requirements ?? {}));
    } catch (thrown) {
      if (!this.signal.aborted) liveStream.checkAfter(asApiError(thrown));
    }
  }
}
