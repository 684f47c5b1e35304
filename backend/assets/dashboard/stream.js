// The one event stream of the page, and whether what the page shows is live.
//
// Problem: an open stream says only that the backend is there, a backend can lose NATS without
// closing the stream, and a connection can be dead without either side knowing. So "live" needs two
// things: a stream without a gap since it was opened, and /ready answering that NATS is there.
// After each gap the views fetch again what they show.
//
// An EventStream reconnects by itself. It gives up on an answer other than 200; then a new one is
// opened here. While the server asks for a token, there is none. One stream per view would be
// simpler, but a browser allows few connections per server.

import { CLOSED, EventStream, OPEN } from './event-stream.js';
import { ReadinessCheck } from './readiness.js';
import { tabToken } from './token.js';

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

/** @typedef {'connecting' | 'live' | 'lost' | 'unready' | 'unauthorized'} LinkState */

/** @type {Set<LinkState>} */
const CALM_STATES = new Set(['live', 'unauthorized']);

/** @type {Set<LinkState>} */
const BAD_STATES = new Set(['lost', 'unready', 'unauthorized']);

class LiveStream {
  /** @type {EventStream | null} */
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
      () => (CALM_STATES.has(this.#state) ? CHECK_WHILE_LIVE_MS : CHECK_WHILE_NOT_LIVE_MS));
    tabToken.onChange(() => this.#takeToken());

    addEventListener('online', () => {
      if (this.#url && !document.hidden) this.#open();
    });
    addEventListener('offline', () => {
      this.#hasNoGap = false;
      this.#setState('lost', 'This device is offline');
    });
    document.addEventListener('visibilitychange', () => this.#takeVisibility());
    // The browser may keep a page that was left, with its stream open.
    addEventListener('pagehide', () => this.#close());
    addEventListener('pageshow', (event) => {
      if (event.persisted) this.#takeVisibility();
    });
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
    if (url === this.#url && this.#source && this.#source.readyState !== CLOSED) {
      if (this.#source.readyState === OPEN) handlers.open?.(false);
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
    if (tabToken.isWanted) return;

    let hadGap = false;
    this.#startOpening();
    this.#source = new EventStream(this.#url, {
      open: (isAgain) => {
        const missed = hadGap || isAgain;
        hadGap = false;
        this.#takeOpen(missed);
      },
      interrupted: () => this.#startOpening(),
      error: () => {
        hadGap = true;
        this.#takeError();
      },
      event: (name, data) => this.#takeEvent(name, data),
    });
  }

  /** @param {boolean} hadGap */
  #takeOpen(hadGap) {
    this.#pauseMs = FIRST_PAUSE_MS;
    const missed = hadGap || BAD_STATES.has(this.#state);
    this.#hasNoGap = true;
    this.#handlers.open?.(missed);
    this.#readiness.ask();
  }

  #takeError() {
    this.#startOpening();
    // "Not ready" says more about a backend that answers.
    if (this.#state !== 'unready') {
      this.#setState('lost', 'The connection to the backend was lost');
    }
    if (this.#source?.readyState === CLOSED) {
      this.#reopenLater();
      this.#handlers.refused?.();
    }
    this.#readiness.ask();
  }

  /**
   * @param {string} name
   * @param {string} data
   */
  #takeEvent(name, data) {
    switch (name) {
      case 'operation':
      case 'progress':
      case 'metrics':
      case 'worker':
        this.#handlers[name]?.(JSON.parse(data));
        break;
      case 'reset':
        this.#handlers.reset?.();
        break;
    }
  }

  /** The server asks for a token, or the tab has got one. */
  #takeToken() {
    if (tabToken.isWanted) {
      this.#close();
      this.#setState('unauthorized', tabToken.refusal);
    } else if (this.#url && !document.hidden) {
      this.#open();
    }
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
    if (tabToken.isWanted) {
      this.#setState('unauthorized', tabToken.refusal);
      return;
    }
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
    if (readyState === OPEN) return true;
    // Closed: it is opened again soon anyway, but not soon enough for a backend that has just come
    // back.
    if (readyState === CLOSED) return isBack;
    // It is connecting, unless that hangs too.
    return performance.now() - this.#openingSince > CHECK_WHILE_LIVE_MS;
  }

  #takeVisibility() {
    clearTimeout(this.#hiddenTimer);
    const isClosed = !this.#source || this.#source.readyState === CLOSED;
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
