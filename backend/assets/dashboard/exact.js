// Reads and writes JSON so that every number keeps its value, and compares such values.

/**
 * A number that would change as a JavaScript number: an integer above 2^53, or one with more digits
 * than a double keeps. It holds the digits as they were written.
 */
export class Exact {
  /** @param {string} digits */
  constructor(digits) {
    this.digits = digits;
  }

  toString() {
    return this.digits;
  }
}

/**
 * Digits and a power of ten. Two numbers have the same value exactly when this text is equal.
 * @param {string} written
 */
function canonicalDecimal(written) {
  const found = /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]?\d+))?$/i.exec(written);
  if (!found) return written;

  const [, sign, integer, fraction = '', power = '0'] = found;
  const digits = (integer + fraction).replace(/^0+/, '');
  const significant = digits.replace(/0+$/, '');
  if (significant === '') return '0';

  const shift = BigInt(power) + BigInt(digits.length - significant.length - fraction.length);
  return `${sign}${significant}e${shift}`;
}

/**
 * A JavaScript number where it has the same value, otherwise an `Exact`.
 * @param {string} written
 * @returns {number | Exact}
 */
export function parseNumber(written) {
  const number = Number(written);
  const isSame = canonicalDecimal(String(number)) === canonicalDecimal(written);
  return isSame ? number : new Exact(written);
}

/**
 * The JSON type of a value.
 * @param {unknown} value
 */
export function jsonType(value) {
  if (value === null) return 'null';
  if (Array.isArray(value)) return 'array';
  if (value instanceof Exact) return 'number';
  return typeof value;
}

/**
 * The JSON pointer of a member of the object at `path`.
 * @param {string} path
 * @param {string} name
 */
export function childPath(path, name) {
  return `${path}/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`;
}

/**
 * One part of a JSON pointer as the name that it stands for.
 * @param {string} part
 */
export function unescapePart(part) {
  return part.replaceAll('~1', '/').replaceAll('~0', '~');
}

/**
 * A member of an object itself. Names come from users: `constructor` is a name like any other.
 * @param {unknown} object
 * @param {string} name
 * @returns {any}
 */
export function ownMember(object, name) {
  if (object === null || typeof object !== 'object') return undefined;
  if (!Object.hasOwn(object, name)) return undefined;
  return /** @type {Record<string, unknown>} */ (object)[name];
}

/**
 * `JSON.parse`, but every number keeps its value.
 * @param {string} written
 * @param {string[]} duplicates gets the paths of members that an object names twice
 * @returns {any}
 * @throws {SyntaxError} when the text is not JSON
 */
export function readJson(written, duplicates = []) {
  // Only for its errors. The reader below expects valid JSON.
  JSON.parse(written);
  const tokens = written.match(/"[^"\\]*(?:\\.[^"\\]*)*"|[[\]{}:,]|[^\s[\]{}:,"]+/g) ?? [];
  let at = 0;

  /** @type {(end: string, readItem: () => void) => void} */
  const readUntil = (end, readItem) => {
    at += 1;
    while (tokens[at] !== end) {
      readItem();
      if (tokens[at] === ',') at += 1;
    }
    at += 1;
  };

  /** @type {(path: string) => unknown} */
  const readArray = (path) => {
    /** @type {unknown[]} */
    const items = [];
    readUntil(']', () => items.push(readValue(`${path}/${items.length}`)));
    return items;
  };

  /** @type {(path: string) => unknown} */
  const readObject = (path) => {
    const members = new Map();
    readUntil('}', () => {
      const name = JSON.parse(tokens[at]);
      at += 2;
      if (members.has(name)) duplicates.push(childPath(path, name));
      members.set(name, readValue(childPath(path, name)));
    });
    return Object.fromEntries(members);
  };

  /** @type {(path: string) => unknown} */
  const readValue = (path) => {
    const token = tokens[at];
    if (token === '[') return readArray(path);
    if (token === '{') return readObject(path);

    at += 1;
    return /^[-\d]/.test(token) ? parseNumber(token) : JSON.parse(token);
  };

  return readValue('');
}

/**
 * `JSON.stringify`, with the digits of `Exact` numbers.
 * @param {unknown} value
 * @param {number} [indent]
 * @returns {string}
 */
export function writeJson(value, indent) {
  // Exact numbers pass through JSON.stringify as texts with a mark that no other text has; their
  // quotes go afterwards.
  const mark = `#${Math.random()}:`;
  const written = JSON.stringify(
    value, (_, part) => (part instanceof Exact ? mark + part : part), indent);
  return written?.replaceAll(new RegExp(`"${mark}([^"]*)"`, 'g'), '$1');
}

/**
 * The paths in `given` whose value differs in `kept`. A null member of an object equals an absent
 * one.
 * @param {any} given
 * @param {any} kept
 * @param {string} path
 * @returns {string[]}
 */
export function changedPaths(given, kept, path = '') {
  const type = jsonType(given);
  if (type !== jsonType(kept)) return [path];

  switch (type) {
    case 'number':
      return canonicalDecimal(String(given)) === canonicalDecimal(String(kept)) ? [] : [path];
    case 'array':
      if (given.length !== kept.length) return [path];
      return given.flatMap((/** @type {unknown} */ item, /** @type {number} */ at) =>
        changedPaths(item, kept[at], `${path}/${at}`));
    case 'object':
      return Object.entries(given)
        .filter(([, item]) => item !== null && item !== undefined)
        .flatMap(([name, item]) =>
          changedPaths(item, ownMember(kept, name), childPath(path, name)));
    default:
      return given === kept ? [] : [path];
  }
}

/**
 * Whether two values are equal as JSON.
 * @param {unknown} a
 * @param {unknown} b
 */
export function isEqual(a, b) {
  return jsonType(a) === jsonType(b)
    && changedPaths(a, b).length === 0
    && changedPaths(b, a).length === 0;
}
