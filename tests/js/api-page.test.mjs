// The modules of the page at /docs that need no browser.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { curlCommand } from '../../backend/assets/dashboard/curl.js';
import { Exact } from '../../backend/assets/dashboard/exact.js';
import { requestAddress } from '../../backend/assets/docs/request.js';
import {
  example, limitsLabel, resolve, typeLabel,
} from '../../backend/assets/docs/schema-facts.js';

const document = {
  components: {
    schemas: {
      Id: { type: 'string', pattern: '^x$', description: 'An id.' },
      Tree: { type: 'object', properties: { child: { $ref: '#/components/schemas/Tree' } },
        required: ['child'] },
      Loop: { $ref: '#/components/schemas/Loop' },
    },
  },
};

test('parameters go where they belong, and empty ones are left out', () => {
  const values = [
    [{ name: 'id', in: 'path' }, 'a/$& b'], [{ name: 'limit', in: 'query' }, '5'],
    [{ name: 'status', in: 'query' }, ''],
    [{ name: 'Last-Event-ID', in: 'header' }, '7'],
  ].map(([parameter, value]) => ({ parameter, value }));

  const { url, headers } = requestAddress('/api/v1/operations/{id}/events', values);

  assert.equal(url, '/api/v1/operations/a%2F%24%26%20b/events?limit=5');
  assert.deepEqual(headers, { 'Last-Event-ID': '7' });
});

test('a curl command survives quotes', () => {
  const command = curlCommand('POST', 'http://x/?a=b&c', {
    headers: { Accept: "it's" }, body: '{"a": "it\'s"}',
  });

  assert.equal(command,
    `curl -s -X POST 'http://x/?a=b&c' -H 'Accept: it'\\''s' -d '{"a": "it'\\''s"}'`);
  assert.equal(curlCommand('GET', 'http://x/'), "curl -s 'http://x/'");
});

test('a curl command has the name of the variable with the token', () => {
  const command = curlCommand('GET', 'http://x/', { withToken: true, file: 'a.json' });

  assert.equal(command,
    `curl -fsS -o 'a.json' 'http://x/' -H "Authorization: Bearer $KTRDR_TOKEN"`);
});

test('references are followed, and one to itself ends', () => {
  assert.deepEqual(resolve(document, { $ref: '#/components/schemas/Id', description: 'Mine.' }),
    { type: 'string', pattern: '^x$', description: 'Mine.' });
  assert.ok(resolve(document, { $ref: '#/components/schemas/Loop' }));
  assert.equal(resolve(document, { $ref: '#/components/schemas/toString' }), undefined);
});

test('types are told in one line', () => {
  const labels = [
    true, false, undefined, { const: 'a' }, { enum: [1, 'b'] }, { type: ['string', 'null'] },
    { type: 'integer', format: 'uint32' },
    { anyOf: [] }, {},
  ].map(typeLabel);

  assert.deepEqual(labels, ['anything', 'nothing', 'anything', '"a"', '1 | "b"', 'string | null',
    'integer (uint32)', 'one of', 'anything']);
});

test('limits are told to the last digit', () => {
  const schema = { minimum: 0, maximum: new Exact('18446744073709551615'), default: null };

  assert.equal(limitsLabel(schema), '≥ 0, ≤ 18446744073709551615, default null');
});

test('an example is the least that a schema asks for', () => {
  const schema = {
    type: 'object', required: ['id', 'count', 'list', 'mode', 'on'],
    properties: {
      id: { $ref: '#/components/schemas/Id' }, count: { type: 'integer', minimum: 3 },
      list: { type: 'array', minItems: 1, items: { const: 5 } },
      mode: { oneOf: [{ const: 'fast' }, { const: 'slow' }] }, on: { type: ['boolean', 'null'] },
      extra: { type: 'string' },
    },
  };

  assert.deepEqual(example(document, schema), { id: '', count: 3, list: [5], mode: 'fast',
    on: false });
  assert.equal(example(document, { type: 'string', examples: ['own'], default: 'other' }), 'own');
});

test('the example of a schema that contains itself ends', () => {
  assert.ok(JSON.stringify(example(document, { $ref: '#/components/schemas/Tree' })).length < 500);
});
