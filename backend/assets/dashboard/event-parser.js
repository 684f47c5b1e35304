// Takes a stream of server-sent events apart, as the HTML standard says:
// https://html.spec.whatwg.org/multipage/server-sent-events.html#event-stream-interpretation

const DEFAULT_NAME = 'message';

export class EventParser {
  // It also removes a byte order mark at the beginning.
  #decoder = new TextDecoder();
  // The beginning of a line whose end has not come yet.
  #line = '';
  // The last character was a CR. A LF that comes next belongs to it.
  #endedWithCr = false;

  // The fields of the event whose end has not come yet.
  #name = '';
  /** @type {string[]} */
  #data = [];
  #id;

  /**
   * The id of the last event. An event without an id keeps that of the one before.
   * @type {string}
   */
  lastId;

  /**
   * How long to wait before the next connection, if the stream has said so.
   * @type {number | null}
   */
  retryMs = null;

  /**
   * @param {(name: string, data: string) => void} onEvent
   * @param {string} [lastId] of the connection before
   */
  constructor(onEvent, lastId = '') {
    this.onEvent = onEvent;
    this.lastId = lastId;
    this.#id = lastId;
  }

  /**
   * Takes the next bytes, however they were split. An event whose end never comes is dropped.
   * @param {Uint8Array} bytes
   */
  push(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === '') return;
    if (this.#endedWithCr && text.startsWith('\n')) text = text.slice(1);
    this.#endedWithCr = text.endsWith('\r');

    const lines = (this.#line + text).split(/\r\n|\r|\n/);
    this.#line = lines.pop() ?? '';
    for (const line of lines) this.#takeLine(line);
  }

  /** @param {string} line */
  #takeLine(line) {
    if (line === '') {
      this.#dispatch();
      return;
    }

    // A comment begins with the colon, so its name is empty.
    const colon = line.indexOf(':');
    const name = colon === -1 ? line : line.slice(0, colon);
    const value = colon === -1 ? '' : line.slice(colon + 1).replace(/^ /, '');
    if (name === 'event') this.#name = value;
    else if (name === 'data') this.#data.push(value);
    else if (name === 'id' && !value.includes('\0')) this.#id = value;
    else if (name === 'retry' && /^[0-9]+$/.test(value)) this.retryMs = Number(value);
  }

  #dispatch() {
    const name = this.#name || DEFAULT_NAME;
    const data = this.#data;
    this.#name = '';
    this.#data = [];
    this.lastId = this.#id;
    // An event without data only tells its id.
    if (data.length > 0) this.onEvent(name, data.join('\n'));
  }
}
