import assert from 'node:assert/strict';
import { webcrypto } from 'node:crypto';
import { test } from 'node:test';

import { RequestKey } from '../../backend/assets/dashboard/request-key.js';

// Node 18 has no global one.
globalThis.crypto ??= webcrypto;

test('a request that is sent again has the same key', () => {
  const key = new RequestKey();

  const first = key.of('{"steps":1}');

  assert.match(first, /^[0-9a-f]{32}$/);
  assert.equal(key.of('{"steps":1}'), first);
});

test('another request, and the next one after an answer, have other keys', () => {
  const key = new RequestKey();
  const first = key.of('{"steps":1}');

  const changed = key.of('{"steps":2}');
  key.accepted();
  const next = key.of('{"steps":2}');

  assert.equal(new Set([first, changed, next]).size, 3);
});
