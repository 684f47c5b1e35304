import assert from 'node:assert/strict';
import { test } from 'node:test';

import { FieldErrors, InvalidForm } from '../../backend/assets/dashboard/schema-errors.js';

/** A slot that remembers what it shows. */
function slot(more = {}) {
  return {
    shown: '', advice: '', isEmpty: () => false, focus() {},
    set(message) { this.shown = message; }, ...more,
  };
}

function formWith(slots, base = '') {
  const errors = new FieldErrors(base);
  for (const [path, one] of Object.entries(slots)) errors.addSlot(path, one);
  return errors;
}

test('a violation is shown at its field', () => {
  const steps = slot();

  const { unplaced, slots } = formWith({ '/steps': steps })
    .show([{ path: '/steps', message: 'too small' }]);

  assert.equal(steps.shown, 'too small');
  assert.deepEqual([unplaced, slots], [[], [steps]]);
});

test('a violation deeper than any field is shown at the nearest field around it', () => {
  const list = slot();

  formWith({ '/list': list }).show([{ path: '/list/3/x', message: 'wrong' }]);

  assert.equal(list.shown, 'wrong');
});

test('a violation without any field is given back', () => {
  const violation = { path: '/other', message: 'unknown' };

  assert.deepEqual(formWith({ '/steps': slot() }).show([violation]).unplaced, [violation]);
});

test('a missing property is shown at its own empty field', () => {
  const [outer, name] = [slot(), slot({ isEmpty: () => true })];
  const errors = formWith({ '/strategy': outer, '/strategy/a~1b': name });

  errors.show([{ path: '/strategy', message: '"a/b" is a required property' }]);

  assert.deepEqual([outer.shown, name.shown], ['', 'This is required']);
});

test('a missing property without a field is shown at its object', () => {
  const outer = slot();

  formWith({ '/strategy': outer })
    .show([{ path: '/strategy', message: '"type" is a required property' }]);

  assert.equal(outer.shown, '"type" is a required property');
});

test('a missing property of an object in which nothing was entered asks for the object', () => {
  const outer = slot({ isEmpty: () => true });

  formWith({ '/strategy': outer })
    .show([{ path: '/strategy', message: '"type" is a required property' }]);

  assert.equal(outer.shown, 'This is required');
});

test('a text that does not match its pattern gets advice', () => {
  const date = slot({ advice: 'YYYY-MM-DD' });

  formWith({ '/start': date }).show([{ path: '/start', message: '"x" does not match "^y$"' }]);

  assert.equal(date.shown, 'YYYY-MM-DD ("x" does not match "^y$")');
});

test('entries are found by their place, wherever they were made', () => {
  const [first, second] = [slot(), slot()];
  const errors = formWith({ '/list': slot(), '/list/\n1': first, '/list/\n2': second });
  let keys = ['/list/\n1', '/list/\n2'];
  errors.setEntryKeys('/list', (part) => keys[Number(part)]);

  keys = ['/list/\n2'];
  errors.show([{ path: '/list/0', message: 'wrong' }]);

  assert.deepEqual([first.shown, second.shown], ['', 'wrong']);
});

test('a removed field shows nothing any more, and neither do those inside', () => {
  const [outer, entry, inner] = [slot(), slot(), slot()];
  const errors = formWith({ '/a': outer, '/a/b': entry, '/a/b/c': inner });

  errors.forget('/a/b');
  errors.show([{ path: '/a/b/c', message: 'wrong' }]);

  assert.deepEqual([outer.shown, entry.shown, inner.shown], ['wrong', '', '']);
});

test('forgetting what is inside a field keeps the field and those beside it', () => {
  const [field, beside] = [slot(), slot()];
  const errors = formWith({ '/a': field, '/ab': beside });

  errors.forgetInside('/a');
  errors.show([{ path: '/a', message: '1' }, { path: '/ab', message: '2' }]);

  assert.deepEqual([field.shown, beside.shown], ['1', '2']);
});

test('paths begin with the base of the form', () => {
  const attempts = slot();

  formWith({ '/execution/max_attempts': attempts }, '/execution')
    .show([{ path: '/execution/max_attempts', message: 'too small' }]);

  assert.equal(attempts.shown, 'too small');
});

test('reading throws everything that was refused, each with its slot', () => {
  const name = slot();
  const errors = formWith({ '/name': name });

  const read = () => errors.collect(() => {
    errors.refuse('/name', 'This needs a name');
    errors.refuse('/gone', 'This is not JSON');
  });

  assert.throws(read, (error) => error instanceof InvalidForm
    && error.violations.length === 2
    && error.violations[0].slot === name
    && error.violations[1].slot === undefined);
  assert.equal(errors.collect(() => 5), 5, 'nothing is left for the next reading');
});

test('refusals outside of a reading are dropped', () => {
  const errors = formWith({});

  errors.refuse('/name', 'This needs a name');

  assert.equal(errors.collect(() => 'read'), 'read');
});
