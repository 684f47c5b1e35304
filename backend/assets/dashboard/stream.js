// The one event stream of the page, and whether what the page shows is live.
//
// Problem: an open stream says only that the backend is there, a backend can lose NATS without
// closing the stream, and a connection can be dead without either side knowing. So "live" needs two
// things: a stream without a gap since it was opened, and /ready answering that NATS is there.
// After each gap the views fetch again what they show.
//
// EventSource reconnects by itself and tells the backend where it was (Last-Event-ID). It gives up
// on an answer other than 200; then a new one is opened here. One stream per view would be simpler,
// but a browser allows few connections per server.

import { ReadinessCheck } from './readiness.js';

const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 5000;
const CHECK_WHILE_LIVE_MS = 10000;
const CHECK_WHILE_NOT_LIVE_MS = 2000;
// A browser has few connections per server: a tab that nobody looks at gives its one back.
const CLOSE_HIDDEN_MS = 15000;

/**
 * A stream that brings no events: for views that only need to know whether the backend is there.
 */
export const QUIET_STREAM = '/api/v1/events?operation_type=none&worker_type=none';

/** @typedef {'connecting' | 'live' | 'lost' | 'unready'} LinkState */

/** @type {['operation', 'progress', 'metrics', 'worker']} */
const EVENTS = ['operation', 'progress', 'metrics', 'worker'];

class LiveStream {
  /** @type {EventSource | null} */
  #source = null;
  #url = '';
  /** @type {StreamHandlers} */
  #handlers = {};

  #pauseMs = FIRST_PAUSE_MS;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #reopenTimer;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #hiddenTimer;

  // Whether the stream is open and has had no gap that we know of; and since when it is being
  // opened.
  #hasNoGap = false;
  #openingSince = 0;

  /** @type {LinkState} */
  #state = 'connecting';
  #reason = '';
  /** @type {(state: LinkState, reason: string) => void} */
  #onStateChange = () => {};

  #isBackendReady = false;
  #readiness;

  constructor() {
    this.#readiness = new ReadinessCheck(
      (problem) => this.#takeReadiness(problem),
      () => (this.#state === 'live' ? CHECK_WHILE_LIVE_MS : CHECK_WHILE_NOT_LIVE_MS));

    addEventListener('online', () => {
      if (this.#url && !document.hidden) this.#open();
    });
    addEventListener('offline', () => {
      this.#hasNoGap = false;
      this.#setState('lost', 'This device is offline');
    });
    document.addEventListener('visibilitychange', () => this.#takeVisibility());
  }

  /** @param {(state: LinkState, reason: string) => void} callback */
  onStateChange(callback) {
    this.#onStateChange = callback;
  }

  /**
   * Sends the events of `url` to `handlers`, and those of no other stream.
   * @param {string} url
   * @param {StreamHandlers} handlers
   */
  listen(url, handlers) {
    this.#handlers = handlers;
    if (url === this.#url && this.#source && this.#source.readyState !== EventSource.CLOSED) {
      if (this.#source.readyState === EventSource.OPEN) handlers.open?.(false);
      return;
    }

    this.#url = url;
    this.#pauseMs = FIRST_PAUSE_MS;
    // A hidden tab opens its stream when it is looked at. The old one would only bring events that
    // nobody wants.
    if (document.hidden) this.#close();
    else this.#open();
  }

  /** Drops events until the next view listens. */
  unlisten() {
    this.#handlers = {};
  }

  /**
   * Checks the connection at once when a request failed for a cause that may be the backend or
   * NATS.
   * @param {import('./api.js').ApiError} error
   */
  checkAfter(error) {
    if (this.#state === 'live' && error.isTemporary) this.#readiness.ask();
  }

  #open() {
    clearTimeout(this.#reopenTimer);
    this.#source?.close();

    const source = new EventSource(this.#url);
    this.#source = source;
    this.#startOpening();
    let hadGap = false;

    source.onopen = () => {
      if (source !== this.#source) return;
      this.#pauseMs = FIRST_PAUSE_MS;
      const missed = hadGap || this.#state === 'lost' || this.#state === 'unready';
      hadGap = false;
      this.#hasNoGap = true;
      this.#handlers.open?.(missed);
      this.#readiness.ask();
    };

    source.onerror = () => {
      if (source !== this.#source) return;
      hadGap = true;
      this.#startOpening();
      // "Not ready" says more about a backend that answers.
      if (this.#state !== 'unready') {
        this.#setState('lost', 'The connection to the backend was lost');
      }
      if (source.readyState === EventSource.CLOSED) {
        this.#reopenLater();
        this.#handlers.refused?.();
      }
      this.#readiness.ask();
    };

    for (const name of EVENTS) {
      source.addEventListener(name, (event) => {
        if (source === this.#source) this.#handlers[name]?.(JSON.parse(event.data));
      });
    }
    source.addEventListener('reset', () => {
      if (source === this.#source) this.#handlers.reset?.();
    });
  }

  #startOpening() {
    this.#hasNoGap = false;
    this.#openingSince = performance.now();
  }

  #reopenLater() {
    clearTimeout(this.#reopenTimer);
    const jitter = 0.7 + Math.random() * 0.6;
    this.#reopenTimer = setTimeout(() => this.#open(), this.#pauseMs * jitter);
    this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
  }

  #close() {
    clearTimeout(this.#reopenTimer);
    this.#source?.close();
    this.#hasNoGap = false;
  }

  /** @type {(state: LinkState, reason?: string) => void} */
  #setState(state, reason = '') {
    if (this.#state === state && this.#reason === reason) return;
    this.#state = state;
    this.#reason = reason;
    this.#onStateChange(state, reason);
  }

  /** @param {import('./api.js').ApiError | null} problem */
  #takeReadiness(problem) {
    if (problem === null) {
      this.#takeReady();
      return;
    }

    this.#isBackendReady = false;
    if (problem.status !== 0) {
      this.#setState('unready', problem.message);
    } else {
      this.#hasNoGap = false;
      this.#setState('lost', 'The backend cannot be reached');
    }
  }

  #takeReady() {
    const isBack = !this.#isBackendReady;
    this.#isBackendReady = true;
    if (this.#hasNoGap) {
      const before = this.#state;
      this.#setState('live');
      // The stream was open all the time, but requests may have failed meanwhile.
      if (before === 'unready') this.#handlers.open?.(true);
      return;
    }

    if (!this.#url || document.hidden || !this.#source) return;
    if (this.#needsNewSource(this.#source.readyState, isBack)) this.#open();
  }

  /**
   * Whether the backend is ready, but the stream does not get there by itself.
   * @param {number} readyState
   * @param {boolean} isBack
   */
  #needsNewSource(readyState, isBack) {
    // Open, but with a gap: nobody knows whether events still come.
    if (readyState === EventSource.OPEN) return true;
    // Closed: it is opened again soon anyway, but not soon enough for a backend that has just come
    // back.
    if (readyState === EventSource.CLOSED) return isBack;
    // The browser is connecting, unless that hangs too.
    return performance.now() - this.#openingSince > CHECK_WHILE_LIVE_MS;
  }

  #takeVisibility() {
    clearTimeout(this.#hiddenTimer);
    const isClosed = !this.#source || this.#source.readyState === EventSource.CLOSED;
    if (document.hidden) {
      this.#hiddenTimer = setTimeout(() => this.#close(), CLOSE_HIDDEN_MS);
    } else if (this.#url && isClosed) {
      this.#open();
      this.#handlers.reset?.();
    } else {
      this.#readiness.ask();
    }
  }
}

export const liveStream = new LiveStream();
