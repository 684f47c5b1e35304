import assert from 'node:assert/strict';
import { afterEach, beforeEach, test } from 'node:test';

import {
  CLOSED, CONNECTING, EventStream, OPEN,
} from '../../backend/assets/dashboard/event-stream.js';
import { tabToken } from '../../backend/assets/dashboard/token.js';

const real = { setTimeout, clearTimeout, queueMicrotask };
const settle = () => new Promise((resolve) => { setImmediate(() => setImmediate(resolve)); });

/** The requests that were made, each with `answer`, `send`, `end` and `breakOff`. */
let requests;
/** The waiting timers. */
let timers;
/** What the stream has told. */
let told;

/** Answers the last request. */
class Exchange {
  constructor(path, { headers, signal }) {
    this.path = path;
    this.headers = headers;
    this.response = new Promise((resolve, reject) => {
      this.answer = resolve;
      this.fail = () => reject(new TypeError('no connection'));
      signal.addEventListener('abort', () => reject(signal.reason));
    });
    this.signal = signal;
  }

  open() {
    const body = new ReadableStream({ start: (controller) => { this.controller = controller; } });
    this.signal.addEventListener('abort', () => this.controller.error(this.signal.reason));
    this.answer(new Response(body, { headers: { 'content-type': 'text/event-stream' } }));
    return settle();
  }

  send(text) {
    this.controller.enqueue(new TextEncoder().encode(text));
    return settle();
  }

  end() {
    this.controller.close();
    return settle();
  }

  breakOff() {
    this.controller.error(new TypeError('reset'));
    return settle();
  }
}

function follow() {
  return new EventStream('/events', {
    open: (isAgain) => told.push(isAgain ? 'open again' : 'open'),
    interrupted: () => told.push('interrupted'),
    error: () => told.push('error'),
    event: (name, data) => told.push(`${name} ${data}`),
  });
}

const last = () => requests.at(-1);

/** Runs the one timer that waits. */
function passTime() {
  assert.equal(timers.size, 1);
  const [[id, { work }]] = timers;
  timers.delete(id);
  work();
  return settle();
}

beforeEach(() => {
  requests = [];
  told = [];
  timers = new Map();
  tabToken.forget();
  globalThis.fetch = (path, init) => {
    const exchange = new Exchange(path, init);
    requests.push(exchange);
    return exchange.response;
  };
  globalThis.setTimeout = (work, wait) => {
    timers.set(timers.size + 1, { work, wait });
    return timers.size;
  };
  globalThis.clearTimeout = (id) => timers.delete(id);
});

afterEach(() => Object.assign(globalThis, real));

test('events arrive as they are sent', async () => {
  const stream = follow();
  assert.equal(stream.readyState, CONNECTING);
  assert.deepEqual(last().headers, { accept: 'text/event-stream' });

  await last().open();
  await last().send('event: worker\ndata: a\n');
  await last().send('\nevent: operation\ndata: b\n\n');

  assert.equal(stream.readyState, OPEN);
  assert.deepEqual(told, ['open', 'worker a', 'operation b']);
});

test('a connection that ends is made again after a while, with the last id', async () => {
  for (const how of ['end', 'breakOff']) {
    told = [];
    const stream = follow();
    await last().open();
    await last().send('retry: 1000\n\nid: 7\ndata: x\n\nid: 8\ndata: cut');
    await last()[how]();

    assert.deepEqual(told, ['open', 'message x', 'error']);
    assert.equal(stream.readyState, CONNECTING);
    assert.deepEqual([...timers.values()].map(({ wait }) => wait), [1000]);

    await passTime();
    assert.equal(last().headers['last-event-id'], '7');
    await last().open();
    assert.deepEqual(told.slice(3), ['open again']);
    stream.close();
  }
});

test('a server that is not there is asked again and again', async () => {
  follow();
  for (let times = 1; times <= 3; times += 1) {
    last().fail();
    await settle();
    assert.equal(told.length, times);
    assert.deepEqual([...timers.values()].map(({ wait }) => wait), [3000]);
    await passTime();
  }

  await last().open();
  assert.deepEqual(told, ['error', 'error', 'error', 'open']);
});

test('an answer that is no stream ends it', async () => {
  for (const answer of [
    new Response(null, { status: 204 }), new Response('gone', { status: 404 }),
    new Response('no', { status: 503, headers: { 'content-type': 'text/event-stream' } }),
    new Response('page', { headers: { 'content-type': 'text/html' } }),
  ]) {
    told = [];
    const stream = follow();
    last().answer(answer);
    await settle();
    assert.deepEqual(told, ['error']);
    assert.deepEqual([stream.readyState, timers.size], [CLOSED, 0]);
  }
});

test('a closed stream is silent', async () => {
  const stream = follow();
  await last().open();
  const { signal } = last();
  stream.close();
  await settle();
  assert.ok(signal.aborted);
  assert.deepEqual(told, ['open']);
  assert.equal(timers.size, 0);

  const early = follow();
  early.close();
  await settle();
  assert.deepEqual(told, ['open']);
});

test('a fault in a view does not end the stream', async () => {
  const seen = [];
  const reports = [];
  globalThis.queueMicrotask = (report) => reports.push(report);
  const stream = new EventStream('/events', {
    open() {}, interrupted() {}, error() {},
    event(name, data) {
      seen.push(data);
      if (data === 'bad') throw new Error('a fault');
    },
  });
  await last().open();
  await last().send('data: bad\n\ndata: good\n\n');

  assert.deepEqual(seen, ['bad', 'good']);
  assert.equal(reports.length, 1);
  assert.throws(reports[0], /a fault/);
  stream.close();
});

test('a stream that ends for its token says so and not that the connection is lost', async () => {
  tabToken.take('secret');
  const stream = follow();
  assert.equal(last().headers.authorization, 'Bearer secret');
  await last().open();
  await last().end();
  assert.deepEqual([told, requests.length], [['open', 'interrupted'], 2]);

  last().answer(Response.json({ code: 'unauthorized', error: 'removed' }, { status: 401 }));
  await settle();
  assert.deepEqual([tabToken.isWanted, tabToken.refusal], [true, 'removed']);
  assert.equal(stream.readyState, CLOSED);
});

test('an outage looks like one also with a token', async () => {
  tabToken.take('secret');
  follow();
  await last().open();
  await last().breakOff();
  last().fail();
  await settle();

  assert.deepEqual(told, ['open', 'interrupted', 'error']);
  assert.equal(timers.size, 1);
});

test('a server that ends every stream at once is not asked without pause', async () => {
  tabToken.take('secret');
  follow();
  for (let times = 0; times < 3 && timers.size === 0; times += 1) {
    await last().open();
    await last().end();
  }

  assert.equal(requests.length, 2);
  assert.deepEqual(told, ['open', 'interrupted', 'open again', 'error']);
});
