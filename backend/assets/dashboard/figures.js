// Numbers of a result with their units, and the figures that are shown first. The schema of the
// result says both. No elements here.

import { ownMember } from './exact.js';
import { count, duration, fieldTitles, number } from './format.js';
import { withoutNull } from './schema.js';

const DIGITS = 4;
const MAX_FIGURES = 8;

const money = new Intl.NumberFormat('en', {
  minimumFractionDigits: 2, maximumFractionDigits: 2,
});
const BYTES = ['bytes', 'KiB', 'MiB', 'GiB', 'TiB'];

const hundreds = new Intl.NumberFormat('en', { maximumFractionDigits: 1 });
const percents = new Intl.NumberFormat('en', { maximumFractionDigits: 2 });
const small = new Intl.NumberFormat('en', { maximumSignificantDigits: 2 });

/**
 * As many digits as say something, and never 0 for what is not: 1,204.3, 4.46, 0.3, 0.00034.
 * @param {number} value
 */
function asPercent(value) {
  const size = Math.abs(value);
  const format = size >= 100 ? hundreds : size >= 0.1 || size === 0 ? percents : small;
  // There is a zero with a minus.
  return `${format.format(value + 0)} %`;
}

/** @param {number} value */
function asBytes(value) {
  let size = value;
  let unit = 0;
  while (Math.abs(size) >= 1024 && unit < BYTES.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${number(size, 3)} ${BYTES[unit]}`;
}

/**
 * A value with its unit, or null when the unit is not known or the value is not a number.
 * @param {unknown} value
 * @param {string | undefined} unit `x-ktrdr-unit` of its schema
 * @returns {string | null}
 */
export function withUnit(value, unit) {
  if (typeof value !== 'number' || !Number.isFinite(value)) return null;
  switch (unit) {
    case 'percent':
      return asPercent(value * 100);
    case 'percent_points':
      return asPercent(value);
    case 'money':
      // Not -0.00.
      return money.format(Number(value.toFixed(2)) + 0);
    case 'seconds':
      return duration(value);
    case 'hours':
      return duration(value * 3600);
    case 'bytes':
      return asBytes(value);
    case 'count':
      return count(value);
    default:
      return null;
  }
}

/**
 * A scalar as text.
 * @param {unknown} value
 * @param {string} [unit]
 */
export function figureText(value, unit) {
  const written = withUnit(value, unit);
  if (written !== null) return written;
  if (value === null || value === undefined) return 'none';
  if (typeof value === 'number') return number(value, DIGITS);
  return typeof value === 'boolean' ? (value ? 'yes' : 'no') : String(value);
}

/**
 * The schema of a member.
 * @param {Schema | boolean | undefined} schema
 * @param {string} name
 * @param {unknown} root
 * @returns {Schema | undefined}
 */
export function memberSchema(schema, name, root) {
  const found = withoutNull(schema, root);
  const own = ownMember(found.properties, name);
  if (own !== undefined) return withoutNull(own, root);
  return typeof found.additionalProperties === 'object'
    ? withoutNull(found.additionalProperties, root)
    : undefined;
}

/**
 * Whether users choose the names of such members, as those of labels. They are shown as they are.
 * @param {Schema | boolean | undefined} schema
 * @param {string} name
 * @param {unknown} root
 */
export function isNameOfUser(schema, name, root) {
  const { properties, additionalProperties: others } = withoutNull(schema, root);
  return ownMember(properties, name) === undefined
    && (typeof others === 'object' || (others === true && properties === undefined));
}

/**
 * The schema of the items of a list.
 * @param {Schema | boolean | undefined} schema
 * @param {unknown} root
 * @returns {Schema | undefined}
 */
export function itemSchema(schema, root) {
  const { items } = withoutNull(schema, root);
  return items === undefined ? undefined : withoutNull(items, root);
}

/** @typedef {{ name: string, label: string, text: string, exact: string, isText: boolean }} Figure */

/**
 * The figures that say how it went, as the engine's schema names them.
 * @param {unknown} result
 * @param {Schema | undefined} schema
 * @returns {Figure[]}
 */
export function verdictOf(result, schema) {
  const names = schema === undefined ? [] : withoutNull(schema, schema)['x-ktrdr-verdict'] ?? [];
  if (!Array.isArray(names)) return [];

  const figures = names.slice(0, MAX_FIGURES).flatMap((name) => {
    const parts = String(name).split('.');
    let value = result;
    /** @type {Schema | undefined} */
    let at = schema;
    for (const part of parts) {
      value = ownMember(value, part);
      at = at && memberSchema(at, part, schema);
    }
    if (value === undefined || (value !== null && typeof value === 'object')) return [];

    const unit = at?.['x-ktrdr-unit'];
    return [{ name: String(name), parts, value, unit, hasUnit: withUnit(value, unit) !== null }];
  });

  const labels = fieldTitles(nameWithParents(figures));
  return figures.map(({ name, value, unit }, at) => ({
    name,
    label: labels[at],
    text: figureText(value, unit),
    exact: String(value),
    isText: typeof value === 'string',
  }));
}

/**
 * What figures are called. One parent of all that are in one says nothing; one of several says which
 * of them it is, as in `baseline.val_loss`.
 * @template {{ parts: string[] }} F
 * @param {F[]} figures
 */
function nameWithParents(figures) {
  const parents = figures.map(({ parts }) => parts.slice(0, -1).join('_')).filter(Boolean);
  const isTelling = new Set(parents).size > 1;
  return figures.map((figure) => ({
    ...figure, name: (isTelling ? figure.parts : figure.parts.slice(-1)).join('_'),
  }));
}
