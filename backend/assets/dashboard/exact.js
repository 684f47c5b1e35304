// JSON in which every number keeps its value, and comparing what was read.

// A number that JavaScript's own would change (integers above 2^53, more digits than it keeps), as it was written.
export class Exact {
  constructor(digits) { this.digits = digits; }
  toString() { return this.digits; }
}

// Digits and power of ten: equal for numbers of the same value, however they are written.
function decimal(written) {
  const found = /^(-?)(\d+)(?:\.(\d+))?(?:e([+-]?\d+))?$/i.exec(written);
  if (!found) return written;
  const [, sign, whole, part = '', power = '0'] = found;
  const digits = (whole + part).replace(/^0+/, '');
  const kept = digits.replace(/0+$/, '');
  return kept === '' ? '0' : `${sign}${kept}e${BigInt(power) + BigInt(digits.length - kept.length - part.length)}`;
}

export const asNumber = (written) => (decimal(String(Number(written))) === decimal(written) ? Number(written) : new Exact(written));

export const kindOf = (value) => (value === null ? 'null' : Array.isArray(value) ? 'array' : value instanceof Exact ? 'number' : typeof value);

export const inside = (path, name) => `${path}/${name.replaceAll('~', '~0').replaceAll('/', '~1')}`;

// Names come from users: `constructor` is one like any other.
export const own = (object, name) => (object !== null && typeof object === 'object' && Object.hasOwn(object, name) ? object[name] : undefined);

// JSON.parse, but every number keeps its value. `twice` gets the paths of what stands twice in one object.
export function readJson(written, twice = []) {
  JSON.parse(written); // says what is wrong with it
  const tokens = written.match(/"[^"\\]*(?:\\.[^"\\]*)*"|[[\]{}:,]|[^\s[\]{}:,"]+/g);
  let at = 0;
  const until = (end, each) => {
    for (at += 1; tokens[at] !== end;) {
      each();
      if (tokens[at] === ',') at += 1;
    }
    at += 1;
  };
  const value = (path) => {
    const token = tokens[at];
    if (token === '[') {
      const list = [];
      until(']', () => list.push(value(`${path}/${list.length}`)));
      return list;
    }
    if (token === '{') {
      const members = new Map();
      until('}', () => {
        const name = JSON.parse(tokens[at]);
        at += 2;
        if (members.has(name)) twice.push(inside(path, name));
        members.set(name, value(inside(path, name)));
      });
      return Object.fromEntries(members);
    }
    at += 1;
    return /^[-\d]/.test(token) ? asNumber(token) : JSON.parse(token);
  };
  return value('');
}

export function writeJson(value, indent) {
  // Exact numbers go through JSON.stringify as texts that nobody else writes, and lose their quotes afterwards.
  const sign = `#${Math.random()}:`;
  const written = JSON.stringify(value, (_, part) => (part instanceof Exact ? sign + part : part), indent);
  return written?.replaceAll(new RegExp(`"${sign}([^"]*)"`, 'g'), '$1');
}

// The paths in `given` whose value is not the same in `kept`. A null in an object says what leaving it out says.
export function lost(given, kept, path = '') {
  const kind = kindOf(given);
  if (kind !== kindOf(kept)) return [path];
  if (kind === 'number') return decimal(String(given)) === decimal(String(kept)) ? [] : [path];
  if (kind === 'array') return given.length === kept.length ? given.flatMap((item, at) => lost(item, kept[at], `${path}/${at}`)) : [path];
  if (kind !== 'object') return given === kept ? [] : [path];
  return Object.entries(given).filter(([, item]) => item !== null && item !== undefined)
    .flatMap(([name, item]) => lost(item, own(kept, name), inside(path, name)));
}

export const same = (a, b) => kindOf(a) === kindOf(b) && lost(a, b).length === 0 && lost(b, a).length === 0;
