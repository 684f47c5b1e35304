import assert from 'node:assert/strict';
import { test } from 'node:test';

import { EventParser } from '../../backend/assets/dashboard/event-parser.js';

const encode = (text) => new TextEncoder().encode(text);

/** Parses chunks, and returns the events and the parser. */
function parse(chunks, lastId) {
  const events = [];
  const parser = new EventParser((name, data) => {
    events.push({ name, data, id: parser.lastId });
  }, lastId);
  for (const chunk of chunks) parser.push(typeof chunk === 'string' ? encode(chunk) : chunk);
  return { events, parser };
}

const names = (text) => parse([text]).events.map(({ name, data }) => `${name}=${data}`);

test('an event has a name, data and an id', () => {
  const { events } = parse(['id: 7\nevent: operation\ndata: {"a": 1}\n\n']);

  assert.deepEqual(events, [{ name: 'operation', data: '{"a": 1}', id: '7' }]);
});

test('events are the same however the bytes are split', () => {
  const text = '\ufeffretry: 250\r\n\r\n: stay\r\nid: ä1\r\nevent: worker\r\n'
    + 'data: 日本\r\ndata: 🚀\r\n\r\ndata: second\r\rdata\n\nid: 9\n\n';
  const bytes = encode(text);
  const whole = parse([bytes]);
  assert.deepEqual(whole.events, [
    { name: 'worker', data: '日本\n🚀', id: 'ä1' },
    { name: 'message', data: 'second', id: 'ä1' },
    { name: 'message', data: '', id: 'ä1' },
  ]);

  // Each byte alone, and every way to make two chunks.
  const splits = [[...bytes].map((byte) => Uint8Array.of(byte))];
  for (let at = 0; at <= bytes.length; at += 1) {
    splits.push([bytes.subarray(0, at), bytes.subarray(at)]);
  }
  for (const chunks of splits) {
    const { events, parser } = parse(chunks);
    assert.deepEqual(events, whole.events);
    assert.deepEqual([parser.lastId, parser.retryMs], ['9', 250]);
  }
});

test('lines end with LF, CR or CRLF, also mixed', () => {
  assert.deepEqual(names('data: a\n\ndata: b\r\rdata: c\r\n\r\ndata: d\r\n\ndata: e\n\r'),
    ['message=a', 'message=b', 'message=c', 'message=d', 'message=e']);
});

test('a CR at the end of a chunk ends its line at once', () => {
  assert.deepEqual(parse(['data: a\r\r']).events.map(({ data }) => data), ['a']);
  assert.deepEqual(parse(['data: a\r', '\ndata: b\r', '\n\r', '\n']).events.map(({ data }) => data),
    ['a\nb']);
});

test('data of several lines is joined, and only one space is removed', () => {
  assert.deepEqual(names('data:  two\ndata:none\ndata:\ndata\n\n'), ['message= two\nnone\n\n']);
});

test('comments and unknown fields are nothing', () => {
  assert.deepEqual(names(': data: x\n:\n\nfoo: bar\nData: x\n data: x\n\ndata: a\n\n'),
    ['message=a']);
});

test('an event without data only tells its id, and loses its name', () => {
  const { events, parser } = parse(['event: gone\nid: 5\n\ndata: a\n\n']);

  assert.deepEqual(events, [{ name: 'message', data: 'a', id: '5' }]);
  assert.equal(parser.lastId, '5');
});

test('an id counts when its event is complete, and is kept until the next one', () => {
  assert.equal(parse(['id: 8\ndata: x\n'], '3').parser.lastId, '3');
  assert.equal(parse(['data: x\n\n'], '3').parser.lastId, '3');
  assert.equal(parse(['id: 8\n\n'], '3').parser.lastId, '8');
  assert.equal(parse(['id\ndata: x\n\n'], '3').parser.lastId, '', 'an empty id resets it');
  assert.equal(parse(['id: 1\0\n\n'], '3').parser.lastId, '3', 'NUL makes an id invalid');
});

test('only digits set the time between connections', () => {
  for (const value of ['', 'soon', '-1', '1.5', '1s', '٣']) {
    assert.equal(parse([`retry: ${value}\n\n`]).parser.retryMs, null, value);
  }
  assert.equal(parse(['retry: 0\n']).parser.retryMs, 0);
});

test('an event without its end is dropped', () => {
  assert.deepEqual(names('data: a\n\ndata: b\n'), ['message=a']);
  assert.deepEqual(names('data: a\n\ndata: b'), ['message=a']);
});

test('only the first byte order mark is removed', () => {
  assert.deepEqual(names('\ufeffdata: a\n\n'), ['message=a']);
  assert.deepEqual(names('\ufeff\ufeffdata: a\n\ndata: b\n\n'), ['message=b']);
  assert.deepEqual(names('data: \ufeffa\n\n'), ['message=\ufeffa']);
});
