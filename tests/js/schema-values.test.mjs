import assert from 'node:assert/strict';
import { test } from 'node:test';

import { writeJson } from '../../backend/assets/dashboard/exact.js';
import {
  listValue, mapValue, numberValue, objectValue, textValue,
} from '../../backend/assets/dashboard/schema-values.js';

test('numbers are read as people write them', () => {
  const read = ['', '  ', ' 5 ', '+5', '-.5', '5.', '007', '1e3', '0', '-0.0'].map(numberValue);

  assert.deepEqual(read, [undefined, undefined, 5, 5, -0.5, 5, 7, 1000, 0, -0]);
});

test('a number keeps all its digits', () => {
  assert.equal(writeJson(numberValue('18446744073709551615')), '18446744073709551615');
});

test('what is not a number goes to the backend as it was typed, which says what it expects', () => {
  assert.equal(numberValue('many'), 'many');
  assert.equal(numberValue('1,5'), '1,5');
});

test('an emptied text is left out, unless it began empty or a default would take its place', () => {
  assert.equal(textValue('', 'before', {}), undefined);
  assert.equal(textValue('', undefined, { default: null }), undefined);
  assert.equal(textValue('', '', {}), '');
  assert.equal(textValue('', 'before', { default: 'before' }), '');
  assert.equal(textValue('x', undefined, {}), 'x');
});

test('an object has the members that were entered, and the fixed ones', () => {
  const object = objectValue([['a', 1], ['b', undefined], ['c', false]], { kind: 'fill' });

  assert.deepEqual(object, { kind: 'fill', a: 1, c: false });
});

test('an entry without a value keeps its place', () => {
  assert.deepEqual(listValue([1, undefined, 3], true), [1, null, 3]);
});

test('an empty list is left out only where there was none', () => {
  assert.equal(listValue([], true), undefined);
  assert.deepEqual(listValue([], false), []);
});

test('a map refuses values without a name and names that stand twice, at their entries', () => {
  const refused = [];
  const entries = [
    { name: 'a', value: 1 }, { name: '', value: 2 }, { name: '', value: undefined },
    { name: 'a', value: 3 },
  ];

  const value = mapValue(entries, true, (at, message) => refused.push([at, message]));

  assert.deepEqual(value, { a: 3 });
  assert.deepEqual(refused, [
    [0, 'Another entry has the same name'], [1, 'This needs a name'],
    [3, 'Another entry has the same name'],
  ]);
});

test('a map takes constructor as a name, and null for a value that is missing', () => {
  const value = mapValue([{ name: 'constructor', value: undefined }], true, assert.fail);

  assert.deepEqual(Object.entries(value), [['constructor', null]]);
});
