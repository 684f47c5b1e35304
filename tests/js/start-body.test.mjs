import assert from 'node:assert/strict';
import { test } from 'node:test';

import { InvalidForm } from '../../backend/assets/dashboard/schema-errors.js';
import {
  bodyOf, checkUnchanged, joinParts, parseBody, partOf, sharedSchemas, splitBody,
} from '../../backend/assets/dashboard/start-body.js';

const requirements = {
  type: 'object',
  properties: { gpu: { type: 'boolean' }, cores: { type: ['integer', 'null'], minimum: 1 } },
};
const execution = {
  type: 'object',
  properties: {
    priority: { type: 'integer' },
    max_attempts: { type: 'integer' },
    unknown_yet: { type: 'string' },
    requirements: { $ref: '#/components/schemas/Requirements', description: 'Needs.' },
  },
};

/** An API document with these routes, shaped like /openapi.json. */
function openApi(paths) {
  const optional = { anyOf: [{ $ref: '#/components/schemas/Execution' }, { type: 'null' }] };
  const start = { properties: { steps: {}, task_id: { type: 'string' }, execution: optional } };
  const schemas = { Start: start, Execution: execution, Requirements: requirements };
  return { paths, components: { schemas } };
}

const content = { 'application/json': { schema: { $ref: '#/components/schemas/Start' } } };
const post = { post: { requestBody: { content } } };

test('the schemas of the shared parts come from the document of the REST interface', () => {
  const paths = { '/api/v1/operations': { get: {} }, '/api/v1/dummy/start': post };
  const shared = sharedSchemas(openApi(paths));

  assert.deepEqual(shared.id.properties, { task_id: { type: 'string' } });
  assert.deepEqual(Object.keys(shared.how.properties), ['requirements', 'max_attempts']);
  assert.deepEqual(Object.keys(shared.when.properties), ['priority', 'unknown_yet'],
    'an option that is added later has a field, too');
});

test('requirements are shown at once, and a GPU is a checkbox', () => {
  const shared = sharedSchemas(openApi({ '/api/v1/dummy/start': post }));
  const found = shared.how.properties.requirements;

  assert.deepEqual(found.default, {});
  assert.equal(found.description, 'Needs.');
  assert.deepEqual(found.properties.gpu, { default: false, type: 'boolean' });
  assert.equal(found.properties.cores.default, undefined);
  assert.equal(requirements.properties.gpu.default, undefined,
    'the document itself stays as it is');
});

test('a document without a start route is an error', () => {
  assert.throws(() => sharedSchemas(openApi({ '/api/v1/operations/{id}/start': post })),
    /no route that starts/);
});

test('only what was asked for is sent', () => {
  const parts = {
    id: {}, how: { requirements: { gpu: false } }, when: {}, parameters: { steps: 3 },
  };

  assert.deepEqual(joinParts(parts), { steps: 3 });
});

test('parts are joined into one body, and a body is split into the same parts', () => {
  const parts = {
    id: { task_id: 'mine' }, how: { max_attempts: 2, requirements: { cores: 4 } },
    when: { priority: 1 }, parameters: { steps: 3 },
  };

  const body = joinParts(parts);

  assert.deepEqual(body, { task_id: 'mine', steps: 3,
    execution: { max_attempts: 2, priority: 1, requirements: { cores: 4 } } });
  assert.deepEqual(splitBody(body), {
    id: parts.id, execution: { ...parts.how, ...parts.when }, parameters: parts.parameters,
  });
});

test('a violation belongs to the part that its path begins with', () => {
  assert.equal(partOf('/task_id'), 'id');
  assert.equal(partOf('/execution'), 'how');
  assert.equal(partOf('/execution/max_attempts'), 'how');
  assert.equal(partOf('/execution/requirements/cores'), 'how');
  assert.equal(partOf('/execution/priority'), 'when');
  assert.equal(partOf('/execution/labels/a'), 'when');
  for (const path of ['/executions', '/steps', '']) assert.equal(partOf(path), 'parameters', path);
});

test('a body must be an object', () => {
  const others = [
    ['null', 'null'], ['[]', 'a list'], ['"x"', 'a text'], ['true', 'true'], ['1', 'a number'],
    ['1e400', 'a number'],
  ];

  for (const [text, kind] of others) {
    assert.throws(() => parseBody(text),
      { message: `A start is an object, { … }; this is ${kind}` }, text);
  }
});

test('a body must be JSON', () => {
  assert.throws(() => parseBody('{'),
    (error) => error instanceof InvalidForm && error.message.startsWith('This is not JSON: '));
});

test('a body that names a member twice cannot become a form', () => {
  const { value, duplicates } = parseBody('{"a": 1, "a": 2}');

  assert.throws(() => checkUnchanged(value, duplicates, { a: 2 }), { message: 'Named twice: /a' });
});

test('a body with values that the form has no field for cannot become a form', () => {
  const body = Object.fromEntries(Array.from({ length: 10 }, (_, at) => [`f${at}`, at]));

  assert.throws(() => checkUnchanged(body, [], {}),
    /at \/f0, .*\/f7 and 2 more\. Start it as JSON/);
  assert.doesNotThrow(() => checkUnchanged(body, [], body));
});

test('a body comes back from its parts', () => {
  for (const body of [{}, { steps: 1 }, { task_id: 'a', steps: 1, execution: { max_attempts: 2 } }]) {
    assert.deepEqual(bodyOf(splitBody(body)), body);
  }
});
