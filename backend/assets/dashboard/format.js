// Numbers, times and names as people read them.

import { serverNow } from './server-clock.js';

const integers = new Intl.NumberFormat('en');
const dateAndTime = new Intl.DateTimeFormat(undefined, {
  dateStyle: 'medium', timeStyle: 'medium', hour12: false,
});
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
  return isNumber(value) ? integers.format(value) : UNKNOWN;
}

/** @param {number | null | undefined} value */
export function number(value) {
  if (!isNumber(value)) return UNKNOWN;
  if (Number.isInteger(value)) return integers.format(value);

  const size = Math.abs(value);
  if (size >= 1000) return integers.format(Math.round(value * 100) / 100);
  if (size >= 0.001) return String(Number(value.toPrecision(6)));
  return value.toExponential(3);
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
 * Date and time of day.
 * @param {string | null | undefined} time
 */
export function moment(time) {
  const at = Date.parse(time ?? '');
  return isNumber(at) ? dateAndTime.format(at) : UNKNOWN;
}

/** @param {string | number | null | undefined} time */
export function timeOfDay(time) {
  const at = typeof time === 'number' ? time : Date.parse(time ?? '');
  return isNumber(at) ? clockTime.format(at) : UNKNOWN;
}

/** @param {number | null | undefined} value */
export function percent(value) {
  if (!isNumber(value)) return UNKNOWN;
  const shown = value < 10 && value % 1 !== 0 ? value.toFixed(1) : Math.floor(value);
  return `${shown} %`;
}

/**
 * data_processing → Data processing
 * @param {unknown} name
 */
export function title(name) {
  const words = String(name).replaceAll(/[_-]+/g, ' ').trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
}

/**
 * The beginning of a text, not cut within a character that takes two places.
 * @param {string} text
 * @param {number} length
 */
export function beginning(text, length) {
  return text.slice(0, length).replace(/[\ud800-\udbff]$/, '');
}
