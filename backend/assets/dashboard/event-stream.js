// One event stream, as EventSource has it: it reconnects by itself, tells the backend where it was
// (Last-Event-ID), and gives up on an answer other than 200. EventSource cannot send a token.

import { EventParser } from './event-parser.js';
import { fetchWith, noticeRefusal } from './token-fetch.js';
import { tabToken } from './token.js';

export const CONNECTING = 0;
export const OPEN = 1;
export const CLOSED = 2;

// How long to wait before the next connection, until the stream says something else. Browsers have
// this value.
const RETRY_MS = 3000;

/**
 * How a connection ended; 'ended' after it was open.
 * @typedef {'refused' | 'failed' | 'ended'} End
 */

/**
 * @typedef {object} EventStreamHandlers
 * @property {(isAgain: boolean) => void} open `isAgain`: events may have been missed before
 * @property {() => void} interrupted the connection has ended, and the next one is being made
 * @property {() => void} error the connection has failed; the next one is made later, unless the
 *   stream is `CLOSED`
 * @property {(name: string, data: string) => void} event
 */

export class EventStream {
  readyState = CONNECTING;
  #url;
  #handlers;
  #abort = new AbortController();
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  #timer;
  #lastId = '';
  #retryMs = RETRY_MS;
  #wasOpen = false;
  #lastHurry = -Infinity;

  /**
   * @param {string} url
   * @param {EventStreamHandlers} handlers never called after `close`
   */
  constructor(url, handlers) {
    this.#url = url;
    this.#handlers = handlers;
    this.#connect();
  }

  close() {
    this.readyState = CLOSED;
    clearTimeout(this.#timer);
    this.#abort.abort();
  }

  async #connect() {
    const end = await this.#follow();
    if (this.readyState === CLOSED) return;

    if (end === 'refused') {
      this.readyState = CLOSED;
      this.#tell(() => this.#handlers.error());
      return;
    }

    this.readyState = CONNECTING;
    if (end === 'ended' && this.#mayHurry()) {
      this.#tell(() => this.#handlers.interrupted());
      this.#connect();
      return;
    }
    this.#tell(() => this.#handlers.error());
    this.#timer = setTimeout(() => this.#connect(), this.#retryMs);
  }

  /**
   * Whether to connect at once. A backend ends the streams of a token that was removed; the next
   * answer tells whether it was that or an outage.
   */
  #mayHurry() {
    const now = performance.now();
    if (!tabToken.isUsed || now - this.#lastHurry < this.#retryMs) return false;
    this.#lastHurry = now;
    return true;
  }

  /**
   * Opens the stream and reads it to its end.
   * @returns {Promise<End>}
   */
  async #follow() {
    /** @type {Record<string, string>} */
    const headers = { accept: 'text/event-stream' };
    if (this.#lastId !== '') headers['last-event-id'] = this.#lastId;
    const used = tabToken.value;
    let body;
    try {
      const response = await fetchWith(used, this.#url, { headers, signal: this.#abort.signal });
      if (!isEventStream(response)) {
        await noticeRefusal(response, used, true);
        await response.body?.cancel();
        return 'refused';
      }
      body = response.body;
    } catch {
      return 'failed';
    }
    if (this.readyState === CLOSED || body === null) return 'refused';

    this.readyState = OPEN;
    const isAgain = this.#wasOpen;
    this.#wasOpen = true;
    this.#tell(() => this.#handlers.open(isAgain));
    await this.#read(body.getReader());
    return 'ended';
  }

  /** @param {ReadableStreamDefaultReader<Uint8Array>} reader */
  async #read(reader) {
    const parser = new EventParser((name, data) => {
      this.#tell(() => this.#handlers.event(name, data));
    }, this.#lastId);
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done || this.readyState === CLOSED) return;
        parser.push(value);
        this.#lastId = parser.lastId;
        this.#retryMs = parser.retryMs ?? this.#retryMs;
      }
    } catch {
      // The connection broke, or `close` ended it.
    }
  }

  /** @param {() => void} call */
  #tell(call) {
    if (this.#abort.signal.aborted) return;
    try {
      call();
    } catch (error) {
      // A fault in a view does not end the stream. The console shows it.
      queueMicrotask(() => { throw error; });
    }
  }
}

/** @param {Response} response */
function isEventStream(response) {
  const type = response.headers.get('content-type') ?? '';
  return response.status === 200 && type.split(';')[0].trim() === 'text/event-stream';
}
