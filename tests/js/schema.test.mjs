import assert from 'node:assert/strict';
import { test } from 'node:test';

import { Exact } from '../../backend/assets/dashboard/exact.js';
import {
  choicesOf, fitsVariant, orderedNames, patternAdvice, rangeHint, resolveSchema, tagOf,
  variantLabel,
  variantsOf, withoutNull,
} from '../../backend/assets/dashboard/schema.js';

const root = {
  $defs: {
    Time: { type: 'string', description: 'YYYY-MM-DD', pattern: '^x$', examples: ['2024-01-31'] },
    'a/b': { type: 'boolean' },
    Loop: { $ref: '#/$defs/Loop' },
    Drop: { type: 'object', properties: { kind: { const: 'drop' } }, required: ['kind'] },
    Fill: { type: 'object', properties: { kind: { enum: ['fill'] }, with: { type: 'number' } },
      required: ['kind', 'with'] },
  },
};

test('what stands beside a reference wins, and the hidden description is kept as advice', () => {
  const found = resolveSchema({ $ref: '#/$defs/Time', description: 'The first day.' }, root);

  assert.equal(found.type, 'string');
  assert.equal(found.description, 'The first day.');
  assert.equal(patternAdvice(found), 'YYYY-MM-DD; for example 2024-01-31');
});

test('references are escaped, may lead nowhere, and may lead to themselves', () => {
  assert.equal(resolveSchema({ $ref: '#/$defs/a~1b' }, root).type, 'boolean');
  assert.deepEqual(resolveSchema({ $ref: '#/$defs/constructor' }, root), {});
  assert.ok(resolveSchema({ $ref: '#/$defs/Loop' }, root));
});

test('allOf with one member is that member', () => {
  assert.deepEqual(resolveSchema({ allOf: [{ type: 'integer' }], title: 'N' }, root),
    { type: 'integer', title: 'N' });
});

test('null is no possibility of its own', () => {
  assert.deepEqual(withoutNull({ type: ['integer', 'null'], minimum: 1 }, root),
    { type: 'integer', minimum: 1 });
  assert.deepEqual(withoutNull({ type: ['string', 'null'], enum: ['a', null] }, root),
    { type: 'string', enum: ['a'] });
  assert.equal(withoutNull({ anyOf: [{ $ref: '#/$defs/Time' }, { type: 'null' }], default: null },
    root).type, 'string');
  assert.equal(withoutNull({ oneOf: [{ type: 'string' }, { type: 'number' }, { const: null }] },
    root).oneOf.length, 2);
});

test('choices come from enum and from alternatives that are all constants', () => {
  assert.deepEqual(choicesOf({ enum: ['a', 2] }, root).map(({ label }) => label), ['a', '2']);
  assert.deepEqual(
    choicesOf({ oneOf: [{ const: 'a', title: 'First', description: 'note' }, { enum: ['b'] }] },
      root),
    [{ value: 'a', label: 'First', note: 'note' }, { value: 'b', label: 'b', note: undefined }]);
  assert.equal(choicesOf({ oneOf: [{ const: 'a' }, { type: 'object' }] }, root), null);
});

test('alternatives among alternatives are offered side by side', () => {
  const nested = { oneOf: [{ type: 'string' },
    { anyOf: [{ $ref: '#/$defs/Drop' }, { $ref: '#/$defs/Fill' }] }] };

  const labels = variantsOf(nested, root).map((variant, at) => variantLabel(variant, root, at));

  assert.deepEqual(labels, ['String', 'Drop', 'Fill']);
});

test('a variant is called by its tag, values, title, properties or type', () => {
  const label = (variant) => variantLabel(variant, root, 4);

  assert.equal(label({ enum: [1, 2, 3, 4] }), 'By name: 1, 2, 3, …');
  assert.equal(label({ title: 'Own', type: 'object', required: ['a'] }), 'Own');
  assert.equal(label({ type: 'object', required: ['from', 'to'], properties: { x: {} } }),
    'From, to');
  assert.equal(label({ type: ['string', 'number'] }), 'String or number');
  assert.equal(label({ const: 5 }), '5');
  assert.equal(label({}), 'Form 5');
});

test('a tag is a required property with one value', () => {
  assert.deepEqual(tagOf(root.$defs.Fill, root), { name: 'kind', value: 'fill' });
  assert.equal(tagOf({ properties: { kind: { const: 'x' } } }, root), null);
});

test('a value finds its variant by tag, else by type and names', () => {
  assert.ok(fitsVariant(root.$defs.Fill, { kind: 'fill', with: 1 }, root));
  assert.ok(!fitsVariant(root.$defs.Drop, { kind: 'fill', with: 1 }, root));
  assert.ok(fitsVariant({ type: 'integer' }, new Exact('18446744073709551615'), root));
  assert.ok(!fitsVariant({ type: 'integer' }, 1.5, root));
  assert.ok(!fitsVariant({ type: 'object', properties: { a: {} } }, { b: 1 }, root));
});

test('ranges are told in words, to the last digit', () => {
  const hints = [
    { minimum: 1, maximum: 5 }, { exclusiveMinimum: 0, exclusiveMaximum: 1 },
    { exclusiveMinimum: 0, maximum: 1 },
    { minimum: 2 }, { type: 'integer', minimum: 0 }, { minimum: 0 }, { exclusiveMinimum: 0 },
    { maximum: 9 },
    { exclusiveMaximum: 9 }, {}, { minimum: 0, maximum: new Exact('18446744073709551614') },
  ].map(rangeHint);

  assert.deepEqual(hints, [
    'from 1 up to 5', 'more than 0 and less than 1', 'more than 0 up to 1',
    'at least 2', '', 'at least 0', 'more than 0', 'at most 9',
    'less than 9', '', 'from 0 up to 18,446,744,073,709,551,614',
  ]);
});

test('fields keep the order of their author; where it was lost, required ones stand first', () => {
  const schema = (names, required = []) =>
    ({ required, properties: Object.fromEntries(names.map((name) => [name, {}])) });

  assert.deepEqual(orderedNames(schema(['b', 'a', 'c'], ['c', 'absent'])), ['b', 'a', 'c']);
  assert.deepEqual(orderedNames(schema(['a', 'b', 'c'], ['c', 'absent'])), ['c', 'a', 'b']);
  assert.deepEqual(orderedNames(schema(['end', 'fill', 'start'])), ['start', 'end', 'fill']);
  assert.deepEqual(orderedNames(schema(['end', 'start', 'fill'])), ['end', 'start', 'fill'],
    'the author had an order');
  assert.deepEqual(orderedNames(schema(['backend', 'backstart'])), ['backend', 'backstart'],
    'part of a word');
});
