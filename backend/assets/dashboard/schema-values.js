// What was entered in a form, as JSON values. `undefined` stands for a field that is left out.
//
// The backend judges values. Only what cannot be sent is refused here: entries without a name, and
// names that stand twice.

import { parseNumber } from './exact.js';

/**
 * A number as people write it (`+5`, `.5`, `007`), with all its digits. Any other text is returned
 * as it is: the backend answers it with what it expects.
 * @param {string} entered
 */
export function numberValue(entered) {
  const text = entered.trim();
  if (text === '') return undefined;
  const found = /^([+-]?)(?:(\d+)\.?(\d*)|\.(\d+))(e[+-]?\d+)?$/i.exec(text);
  if (!found) return text;

  const [, sign, written = '', fractionAfterInteger, fractionAlone, power = ''] = found;
  const integer = written.replace(/^0+(?=\d)/, '') || '0';
  const fraction = fractionAfterInteger || fractionAlone;
  const minus = sign === '-' ? '-' : '';
  return parseNumber(`${minus}${integer}${fraction ? `.${fraction}` : ''}${power}`);
}

/**
 * An emptied text is left out, except where the field began empty or where the backend would then
 * use a default.
 * @param {string} entered
 * @param {unknown} initial
 * @param {Schema} schema
 */
export function textValue(entered, initial, schema) {
  const hasDefault = schema.default !== undefined && schema.default !== null;
  const isLeftOut = entered === '' && initial !== '' && !hasDefault;
  return isLeftOut ? undefined : entered;
}

/**
 * @param {[string, unknown][]} members
 * @param {Record<string, unknown>} fixed members that have no field
 */
export function objectValue(members, fixed = {}) {
  const object = { ...fixed };
  for (const [name, value] of members) if (value !== undefined) object[name] = value;
  return object;
}

/**
 * An entry in which nothing was entered becomes null and so keeps its place: the backend refuses it
 * there.
 * @param {unknown[]} values
 * @param {boolean} wasAbsent whether the list was absent before
 */
export function listValue(values, wasAbsent) {
  if (values.length === 0 && wasAbsent) return undefined;
  return values.map((value) => value ?? null);
}

/**
 * @param {{ name: string, value: unknown }[]} entries
 * @param {boolean} wasAbsent whether the map was absent before
 * @param {(at: number, message: string) => void} refuse
 */
export function mapValue(entries, wasAbsent, refuse) {
  const values = new Map();
  entries.forEach(({ name, value }, at) => {
    if (name === '') {
      if (value !== undefined) refuse(at, 'This needs a name');
      return;
    }
    const isDuplicate = entries.some((other, otherAt) => otherAt !== at && other.name === name);
    if (isDuplicate) refuse(at, 'Another entry has the same name');
    values.set(name, value ?? null);
  });
  return values.size === 0 && wasAbsent ? undefined : Object.fromEntries(values);
}
