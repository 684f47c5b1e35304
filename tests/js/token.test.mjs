import assert from 'node:assert/strict';
import { beforeEach, test } from 'node:test';

import { fetchWith, fetchWithToken } from '../../backend/assets/dashboard/token-fetch.js';
import { TabToken, refusalOf, tabToken } from '../../backend/assets/dashboard/token.js';
import { readUpTo } from '../../backend/assets/dashboard/read-up-to.js';

/** Storage of a tab. */
class Memory {
  #values = new Map();

  getItem(key) { return this.#values.get(key) ?? null; }

  setItem(key, value) { this.#values.set(key, value); }

  removeItem(key) { this.#values.delete(key); }

  get size() { return this.#values.size; }
}

const settle = () => new Promise((resolve) => { setImmediate(resolve); });

/** @type {{ path: string, method: string, authorization: string | undefined }[]} */
let requests;

/** Answers requests with these, in their order. */
function answerWith(...answers) {
  globalThis.fetch = async (path, { method, headers }) => {
    requests.push({ path, method, authorization: headers.authorization });
    const answer = answers.shift();
    if (answer instanceof Error) throw answer;
    return answer;
  };
}

const refused = () => Response.json({ error: 'expired', code: 'unauthorized' }, { status: 401 });
const forbidden = () => Response.json({ error: 'needs `read`', code: 'forbidden' },
  { status: 403 });
const send = (method, signal) => fetchWithToken(method, '/x', () => ({}), signal);

beforeEach(() => {
  requests = [];
  tabToken.take('start');
});

test('a tab keeps its token over a reload, and forgets it', () => {
  const storage = new Memory();
  const first = new TabToken(storage);
  assert.deepEqual([first.value, first.isUsed], [null, false]);

  first.take('secret');
  assert.equal(new TabToken(storage).value, 'secret');

  first.forget();
  assert.deepEqual([first.value, storage.size, new TabToken(storage).value], [null, 0, null]);
});

test('without storage the page itself keeps it', () => {
  const token = new TabToken(null);

  token.take('secret');

  assert.deepEqual([token.value, token.isOutdated], ['secret', false]);
});

test('a page notices that another page of the tab has signed out', () => {
  const storage = new Memory();
  const kept = new TabToken(storage);
  kept.take('secret');
  assert.equal(kept.isOutdated, false);

  new TabToken(storage).forget();

  assert.deepEqual([kept.isOutdated, kept.value], [true, null]);
});

test('a refused token is forgotten, and the reason is kept', () => {
  const storage = new Memory();
  const token = new TabToken(storage);
  token.take('old');

  token.refuse('old', 'it has expired');

  assert.deepEqual([token.value, token.isWanted, token.refusal, storage.size],
    [null, true, 'it has expired', 0]);
});

test('the first question has no reason: there was no token', () => {
  const token = new TabToken(null);

  token.refuse(null, 'no token');

  assert.deepEqual([token.isWanted, token.refusal], [true, '']);
});

test('a late refusal of an earlier token does not take the new one away', () => {
  const token = new TabToken(new Memory());
  token.take('old');
  token.refuse('old', 'removed');
  token.take('new');

  token.refuse('old', 'removed');
  token.refuse(null, 'none');

  assert.deepEqual([token.value, token.isWanted], ['new', false]);
});

test('only the answers of the server are about the token', () => {
  assert.equal(refusalOf(401, { code: 'unauthorized', error: 'why' }), 'why');
  assert.equal(refusalOf(403, { code: 'forbidden', error: 'why' }), 'why');
  assert.equal(refusalOf(401, null), null, 'a proxy that asks for a password');
  assert.equal(refusalOf(403, { code: 'origin_not_allowed' }), null);
  assert.equal(refusalOf(500, { code: 'unauthorized' }), null);
});

test('every request carries the token, and none carries it without one', async () => {
  answerWith(new Response(), new Response());

  await send('GET');
  await fetchWith(null, '/ready', {});

  assert.deepEqual(requests.map((one) => one.authorization), ['Bearer start', undefined]);
});

test('a read waits for another token and is repeated with it', async () => {
  answerWith(refused(), new Response('data'));
  const answer = send('GET');
  await settle();
  assert.deepEqual([requests.length, tabToken.isWanted, tabToken.refusal], [1, true, 'expired']);

  const later = send('GET');
  await settle();
  assert.equal(requests.length, 1, 'nothing is sent while a token is wanted');

  answerWith(new Response('data'), new Response('more'));
  tabToken.take('next');

  assert.deepEqual([await (await answer).text(), await (await later).text()], ['data', 'more']);
  assert.deepEqual(requests.slice(1).map((one) => one.authorization),
    ['Bearer next', 'Bearer next']);
});

test('a token that may not even read is refused', async () => {
  answerWith(forbidden(), new Response());

  const answer = send('GET');
  await settle();

  assert.deepEqual([tabToken.isWanted, tabToken.refusal], [true, 'needs `read`']);
  tabToken.take('next');
  assert.equal((await answer).status, 200);
});

test('a write is never repeated, and a forbidden one keeps the token', async () => {
  answerWith(forbidden(), refused());

  assert.equal((await send('POST')).status, 403);
  assert.deepEqual([tabToken.value, tabToken.isWanted], ['start', false]);

  assert.equal((await send('DELETE')).status, 401);
  assert.deepEqual([tabToken.value, tabToken.isWanted], [null, true]);
  tabToken.take('next');
  await settle();
  assert.equal(requests.length, 2);
});

test('the body of a refused request can still be read', async () => {
  answerWith(refused());

  const answer = await send('POST');

  assert.equal((await answer.json()).error, 'expired');
});

test('a request that nobody wants any more stops waiting', async () => {
  answerWith(refused());
  const abort = new AbortController();
  const answer = send('GET', abort.signal);
  await settle();

  abort.abort(new Error('left'));

  await assert.rejects(answer, /left/);
  await assert.rejects(send('GET', AbortSignal.abort(new Error('left'))), /left/);
  tabToken.take('next');
  await settle();
  assert.equal(requests.length, 1);
});

test('a body up to the limit is read, and the rest of a larger one is not', async () => {
  const body = (size) => new Response('x'.repeat(size), { headers: { 'content-type': 'a/b' } });
  const whole = await readUpTo(body(100), 100);
  assert.deepEqual([whole.size, whole.type], [100, 'a/b']);
  assert.equal((await readUpTo(new Response(null), 100)).size, 0);
  assert.equal(await readUpTo(body(101), 100), null);

  let pulled = 0;
  let isCancelled = false;
  const endless = new ReadableStream({
    pull(controller) {
      pulled += 1;
      controller.enqueue(new Uint8Array(10));
    },
    cancel() { isCancelled = true; },
  });
  assert.equal(await readUpTo(new Response(endless), 100), null);
  assert.ok(isCancelled && pulled < 15, `${pulled}`);
});
