import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  Exact, changedPaths, childPath, isEqual, jsonType, ownMember, parseNumber, readJson, writeJson,
} from '../../backend/assets/dashboard/exact.js';

test('numbers that JavaScript would change keep their digits', () => {
  const large = ['9007199254740993', '18446744073709551615', '0.1000000000000000055', '1e400'];

  for (const digits of large) {
    assert.ok(parseNumber(digits) instanceof Exact, digits);
    assert.equal(writeJson(readJson(digits)), digits);
  }
});

test('other numbers become JavaScript numbers, however they are written', () => {
  const numbers = [
    ['1.50', 1.5], ['2e3', 2000], ['-0.001', -0.001], ['0', 0], ['9007199254740992', 2 ** 53],
  ];

  for (const [written, value] of numbers) {
    assert.equal(parseNumber(written), value);
  }
});

test('readJson agrees with JSON.parse on everything but large numbers', () => {
  const written = ' {"a": [1, -2.5e3, [], {}], "b\\"\\u00e9\\\\": "x{[,]}:", "": null, '
    + '"t": [true, false]} ';

  assert.deepEqual(readJson(written), JSON.parse(written));
});

test('readJson takes __proto__ and constructor as names like any other', () => {
  const value = readJson('{"__proto__": 1, "constructor": 2}');

  assert.deepEqual(Object.keys(value), ['__proto__', 'constructor']);
  assert.equal(ownMember(value, '__proto__'), 1);
  assert.equal(ownMember({}, 'constructor'), undefined);
});

test('readJson refuses what is not JSON', () => {
  for (const written of ['', '{', '[1,]', "{'a': 1}", '01', 'NaN', '{"a" 1}']) {
    assert.throws(() => readJson(written), SyntaxError, written);
  }
});

test('readJson reports members that an object names twice, by their escaped path', () => {
  const duplicates = [];

  readJson('{"a/b": [{"x": 1, "x": 2}], "a/b": 1, "c": {"a/b": 1}}', duplicates);

  assert.deepEqual(duplicates, ['/a~1b/0/x', '/a~1b']);
});

test('writeJson writes exact numbers without quotes, also inside and indented', () => {
  const value = { big: new Exact('9007199254740993'), text: '#0.5:9', list: [new Exact('1e400')] };

  assert.equal(writeJson(value), '{"big":9007199254740993,"text":"#0.5:9","list":[1e400]}');
  assert.equal(writeJson({ a: new Exact('1e400') }, 2), '{\n  "a": 1e400\n}');
});

test('changedPaths names every difference by its path', () => {
  const given = { same: 1, number: 1, list: [1, { x: 1 }], short: [1], type: '1', missing: 1 };
  const kept = { same: 1, number: 2, list: [1, { x: 2 }], short: [], type: 1 };

  assert.deepEqual(changedPaths(given, kept), ['/number', '/list/1/x', '/short', '/type',
    '/missing']);
});

test('an absent member equals null, an absent entry of a list does not', () => {
  assert.deepEqual(changedPaths({ a: null }, {}), []);
  assert.deepEqual(changedPaths([null], []), ['']);
});

test('numbers are equal by value, to the last digit', () => {
  assert.ok(isEqual(new Exact('10000000000000000000'), new Exact('1e19')));
  assert.ok(!isEqual(new Exact('18446744073709551615'), new Exact('18446744073709551614')));
  assert.ok(!isEqual(1, '1'));
});

test('members that only one object has make objects differ', () => {
  assert.ok(!isEqual({ a: 1 }, { a: 1, b: 2 }));
  assert.ok(!isEqual({ a: 1, b: 2 }, { a: 1 }));
  assert.ok(isEqual({ a: 1, b: [2] }, { b: [2], a: 1 }));
});

test('paths escape tildes and slashes', () => {
  assert.equal(childPath('/a', 'b/c~d'), '/a/b~1c~0d');
});

test('types are those of JSON', () => {
  const types = [null, [], {}, new Exact('1'), 1, '', true].map(jsonType);

  assert.deepEqual(types, ['null', 'array', 'object', 'number', 'number', 'string', 'boolean']);
});
