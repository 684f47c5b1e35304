// Numbers, times and names as people read them.

import { serverNow } from './server-clock.js';

const integers = new Intl.NumberFormat('en');
const dateAndTime = new Intl.DateTimeFormat(undefined, {
  year: 'numeric', month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit',
  second: '2-digit', hour12: false, timeZoneName: 'short',
});
/** @type {Intl.DateTimeFormatOptions} */
const IN_ZONE = {
  weekday: 'short', month: 'short', day: 'numeric', hour: '2-digit', minute: '2-digit', hour12: false,
};
const clockTime = new Intl.DateTimeFormat(undefined, {
  hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false,
});

/** Shown for a value that is not known. */
const UNKNOWN = '–';

/** @type {[string, number][]} */
const UNITS = [['d', 86400], ['h', 3600], ['m', 60], ['s', 1]];

/**
 * @param {unknown} value
 * @returns {value is number}
 */
const isNumber = (value) => Number.isFinite(value);

/** @param {number | null | undefined} value */
export function count(value) {
  // There is a zero with a minus.
  return isNumber(value) ? integers.format(value + 0) : UNKNOWN;
}

/**
 * @param {number | null | undefined} value
 * @param {number} digits significant ones of a fraction
 */
export function number(value, digits = 6) {
  if (!isNumber(value)) return UNKNOWN;
  if (Number.isInteger(value)) return count(value);

  const size = Math.abs(value);
  if (size >= 1000) return integers.format(Math.round(value * 100) / 100);
  if (size >= 0.001) return String(Number(value.toPrecision(digits)));
  return value.toExponential(Math.min(3, digits - 1));
}

/**
 * 1234.5 → "20m 34s". The two largest units are enough.
 * @param {number | null | undefined} seconds
 */
export function duration(seconds) {
  if (!isNumber(seconds)) return UNKNOWN;
  if (seconds < 0) return '0s';
  if (seconds < 1) return `${Math.round(seconds * 1000)}ms`;
  if (seconds < 10 && !Number.isInteger(seconds)) return `${seconds.toFixed(1)}s`;

  let left = Math.round(seconds);
  const parts = [];
  for (const [name, size] of UNITS) {
    const amount = Math.floor(left / size);
    if (amount > 0 || parts.length > 0) parts.push(`${amount}${name}`);
    left -= amount * size;
  }
  return parts.slice(0, 2).join(' ') || '0s';
}

/**
 * How long ago a time was, by the backend's clock.
 * @param {string | null | undefined} time
 */
export function ago(time) {
  const at = Date.parse(time ?? '');
  if (!isNumber(at)) return UNKNOWN;

  const seconds = Math.max(0, (serverNow() - at) / 1000);
  return seconds < 1.5 ? 'just now' : `${duration(Math.round(seconds))} ago`;
}

/**
 * Date, time of day and time zone.
 * @param {string | null | undefined} time
 */
export function moment(time) {
  const at = Date.parse(time ?? '');
  return isNumber(at) ? dateAndTime.format(at) : UNKNOWN;
}

/**
 * How long it takes until a time comes, by the backend's clock.
 * @param {string | null | undefined} time
 */
export function until(time) {
  const at = Date.parse(time ?? '');
  if (!isNumber(at)) return UNKNOWN;

  const seconds = (at - serverNow()) / 1000;
  return seconds < 0.5 ? 'now' : `in ${duration(Math.max(1, Math.round(seconds)))}`;
}

/**
 * Day and time of day in another time zone, and its name. Empty when the browser does not know the
 * zone.
 * @param {string | null | undefined} time
 * @param {string} zone
 * @param {boolean} withSeconds
 */
export function momentIn(time, zone, withSeconds) {
  const at = Date.parse(time ?? '');
  if (!isNumber(at)) return '';
  try {
    /** @type {Intl.DateTimeFormatOptions} */
    const seconds = withSeconds ? { second: '2-digit' } : {};
    const format = new Intl.DateTimeFormat(undefined, { ...IN_ZONE, ...seconds, timeZone: zone });
    return `${format.format(at)} ${zone}`;
  } catch {
    return '';
  }
}

/** The time zone of the browser. */
export const localZone = () => dateAndTime.resolvedOptions().timeZone;

/**
 * A time as fields of the type datetime-local have it; empty when it is none.
 * @param {string | number} time
 * @param {boolean} withSeconds
 */
export function localTime(time, withSeconds = false) {
  const at = new Date(time);
  if (Number.isNaN(at.getTime())) return '';
  return new Date(at.getTime() - at.getTimezoneOffset() * 60000).toISOString()
    .slice(0, withSeconds ? 19 : 16);
}

/** @param {string | number | null | undefined} time */
export function timeOfDay(time) {
  const at = typeof time === 'number' ? time : Date.parse(time ?? '');
  return isNumber(at) ? clockTime.format(at) : UNKNOWN;
}

/**
 * Progress: rounded down, since 100 % is the end.
 * @param {number | null | undefined} value
 */
export function percent(value) {
  if (!isNumber(value)) return UNKNOWN;
  const shown = value < 10 ? Math.floor(value * 10) / 10 : Math.floor(value);
  return `${shown + 0} %`;
}

/**
 * Seconds from one time to another; not a number when one of them is not known.
 * @param {string | null | undefined} from
 * @param {string | null | undefined} to
 */
export function secondsBetween(from, to) {
  return (Date.parse(to ?? '') - Date.parse(from ?? '')) / 1000;
}

/**
 * data_processing → Data processing
 * @param {unknown} name
 */
export function title(name) {
  const words = String(name).replaceAll(/[_-]+/g, ' ').trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/** @type {Record<string, string>} */
const WRITTEN_OTHERWISE = {
  api: 'API', cpu: 'CPU', csv: 'CSV', gpu: 'GPU', id: 'id', json: 'JSON', pnl: 'P&L', rsi: 'RSI',
  sma: 'SMA', url: 'URL', utc: 'UTC',
};

/** @type {Record<string, string>} */
const UNITS_OF_NAMES = { ms: 'ms', seconds: 's', hours: 'h', gb: 'GiB', bytes: 'bytes' };

// In a name, these may mean a fraction or a hundredth, so they are no unit.
const PERCENT_WORDS = ['pct', 'percent'];

/**
 * The name of a field with its unit: step_ms → Step (ms), memory_gb → Memory (GiB).
 * @param {string} name
 * @param {boolean} hasUnit whether the value shows its unit itself
 */
export function fieldTitle(name, hasUnit = false) {
  const words = name.split(/[_\s-]+/).filter(Boolean);
  const last = words.at(-1)?.toLowerCase() ?? '';
  const unit = words.length > 1 && Object.hasOwn(UNITS_OF_NAMES, last) ? UNITS_OF_NAMES[last] : '';
  const isShownByValue = hasUnit && words.length > 1 && PERCENT_WORDS.includes(last);
  const shown = (unit || isShownByValue ? words.slice(0, -1) : words).map((word) => {
    const key = word.toLowerCase();
    return Object.hasOwn(WRITTEN_OTHERWISE, key) ? WRITTEN_OTHERWISE[key] : word;
  }).join(' ');
  const label = shown.charAt(0).toUpperCase() + shown.slice(1);
  return unit && !hasUnit ? `${label} (${unit})` : label;
}

/**
 * The names of fields that stand beside each other. Two that would be the same, such as those of
 * total_return and total_return_pct, keep all their words.
 * @param {{ name: string, hasUnit: boolean }[]} fields
 * @returns {string[]}
 */
export function fieldTitles(fields) {
  const short = fields.map(({ name, hasUnit }) => fieldTitle(name, hasUnit));
  return short.map((shown, at) =>
    (short.indexOf(shown) === short.lastIndexOf(shown) ? shown : fieldTitle(fields[at].name)));
}

/**
 * The beginning of a text, not cut within a character that takes two places.
 * @param {string} text
 * @param {number} length
 */
export function beginning(text, length) {
  return text.slice(0, length).replace(/[\ud800-\udbff]$/, '');
}
