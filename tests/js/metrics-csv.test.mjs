// Metric points as one table.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { readCsv } from '../../backend/assets/dashboard/metrics-csv.js';

const answer = (text, cursor, hasMore) => new Response(text, {
  headers: { 'x-ktrdr-cursor': cursor, 'x-ktrdr-has-more': String(hasMore) },
});

test('the pages of a table become one, with one line of headings', async () => {
  const asked = [];
  globalThis.fetch = async (path) => {
    asked.push(path);
    return path.includes('cursor=1-2')
      ? answer('name,value\r\nloss,3\r\n', '1-3', false)
      : answer('name,value\r\nloss,1\r\nloss,2\r\n', '1-2', true);
  };

  const pages = await readCsv('an id');

  assert.equal(pages.join(''), 'name,value\r\nloss,1\r\nloss,2\r\nloss,3\r\n');
  assert.equal(asked.length, 2);
  assert.match(asked[0], /^\/api\/v1\/operations\/an%20id\/metrics\?format=csv&limit=10000$/);
});

test('a refusal says what the backend said', async () => {
  globalThis.fetch = async () => Response.json({ error: 'no such operation' }, { status: 404 });

  await assert.rejects(readCsv('x'), /no such operation/);
});
