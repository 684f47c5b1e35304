// A cron line as people read it: "09:30 on weekdays". No elements here.
//
// It reads the common shapes. Of any other line it says nothing, and the line itself is shown: a
// wrong sentence would be worse than none.

const DAYS = ['Sunday', 'Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday'];
const MONTHS = [
  'January', 'February', 'March', 'April', 'May', 'June', 'July', 'August', 'September', 'October',
  'November', 'December',
];
const DAY_NAMES = DAYS.map((day) => day.slice(0, 3).toUpperCase());
const MONTH_NAMES = MONTHS.map((month) => month.slice(0, 3).toUpperCase());

// More than these are not told one by one.
const MAX_TIMES = 4;

/** @typedef {{ kind: 'any' }} Any */
/** @typedef {{ kind: 'step', step: number }} Step every so many, from the first on */
/** @typedef {{ kind: 'range', from: number, to: number }} Range */
/** @typedef {{ kind: 'list', values: number[] }} List one value or several */
/** @typedef {Any | Step | Range | List} Field */

/**
 * @param {string} text
 * @param {string[]} names
 * @param {number} first the number of the first name
 */
function numberOf(text, names, first) {
  const at = names.indexOf(text.toUpperCase());
  if (at >= 0) return at + first;
  return /^\d{1,2}$/.test(text) ? Number(text) : NaN;
}

/**
 * One field, if it has a common shape.
 * @param {string} text
 * @param {string[]} [names]
 * @param {number} [first] the number of the first name
 * @returns {Field | null}
 */
function readField(text, names = [], first = 0) {
  if (text === '*') return { kind: 'any' };
  const step = text.match(/^\*\/(\d{1,2})$/);
  if (step) {
    const every = Number(step[1]);
    return every === 1 ? { kind: 'any' } : { kind: 'step', step: every };
  }

  const ends = text.split('-');
  if (ends.length === 2) {
    const [from, to] = ends.map((end) => numberOf(end, names, first));
    return from < to ? { kind: 'range', from, to } : null;
  }
  const values = text.split(',').map((value) => numberOf(value, names, first));
  if (values.some(Number.isNaN)) return null;
  return { kind: 'list', values: [...new Set(values)].sort((a, b) => a - b) };
}

/** @param {string[]} words */
function joined(words) {
  if (words.length < 2) return words.join('');
  return `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`;
}

/** @param {number} number */
const two = (number) => String(number).padStart(2, '0');

/** @param {number} number */
function ordinal(number) {
  const isTeen = number % 100 >= 11 && number % 100 <= 13;
  const ending = isTeen ? 'th' : { 1: 'st', 2: 'nd', 3: 'rd' }[number % 10] ?? 'th';
  return `${number}${ending}`;
}

/**
 * @param {number} step
 * @param {number} whole a step that does not divide it is uneven at its end
 * @param {string} unit
 */
const every = (step, whole, unit) => (whole % step === 0 ? `every ${step} ${unit}s` : null);

/**
 * The time of day.
 * @param {Field} second
 * @param {Field} minute
 * @param {Field} hour
 * @returns {{ text: string, isRepeated: boolean } | null} `isRepeated`: many times a day
 */
function timeText(second, minute, hour) {
  const repeated = (/** @type {string | null} */ text) =>
    (text === null ? null : { text, isRepeated: true });
  if (minute.kind === 'any' && hour.kind === 'any') {
    if (second.kind === 'any') return repeated('every second');
    if (second.kind === 'step') return repeated(every(second.step, 60, 'second'));
  }
  // From here on: once in each minute that matches.
  if (second.kind !== 'list' || second.values.length > 1) return null;
  const [at] = second.values;
  const seconds = at === 0 ? '' : `:${two(at)}`;

  if (minute.kind === 'list' && hour.kind === 'list') {
    const times = hour.values.flatMap((one) =>
      minute.values.map((other) => `${two(one)}:${two(other)}${seconds}`));
    return times.length > MAX_TIMES ? null : { text: joined(times), isRepeated: false };
  }
  if (at !== 0) return null;
  return repeated(repeatedText(minute, hour));
}

/**
 * What comes many times a day.
 * @param {Field} minute
 * @param {Field} hour
 */
function repeatedText(minute, hour) {
  if (minute.kind === 'list' && minute.values.length === 1) {
    const [at] = minute.values;
    if (hour.kind === 'any') return at === 0 ? 'every hour' : `every hour at minute ${at}`;
    if (hour.kind === 'range') {
      return `every hour from ${two(hour.from)}:${two(at)} to ${two(hour.to)}:${two(at)}`;
    }
    if (hour.kind !== 'step') return null;
    const text = every(hour.step, 24, 'hour');
    return text && (at === 0 ? text : `${text} at minute ${at}`);
  }

  const text = minute.kind === 'any' ? 'every minute'
    : minute.kind === 'step' ? every(minute.step, 60, 'minute') : null;
  if (text === null || hour.kind === 'any') return text;
  if (hour.kind === 'range') return `${text} from ${two(hour.from)}:00 to ${two(hour.to)}:59`;
  if (hour.kind !== 'list' || hour.values.length > 1) return null;
  return `${text} from ${two(hour.values[0])}:00 to ${two(hour.values[0])}:59`;
}

/**
 * The days of the week.
 * @param {Field} field
 */
function weekdayText(field) {
  if (field.kind === 'range') {
    if (field.from === 1 && field.to === 5) return 'on weekdays';
    const [from, to] = [DAYS[field.from], DAYS[field.to]];
    return from && to ? `from ${from} to ${to}` : null;
  }
  if (field.kind !== 'list') return null;
  const { values } = field;
  if (values.join() === '0,6') return 'on weekends';
  const days = values.map((value) => DAYS[value]);
  return days.some((day) => day === undefined) ? null : `on ${joined(days.map((day) => `${day}s`))}`;
}

/**
 * The days of months.
 * @param {Field} day
 * @param {Field} month
 */
function dateText(day, month) {
  const months = month.kind === 'list' ? month.values.map((value) => MONTHS[value - 1])
    : month.kind === 'range' ? [MONTHS[month.from - 1], MONTHS[month.to - 1]] : [];
  if (months.some((name) => name === undefined)) return null;
  if (month.kind === 'step') return null;
  const fromTo = month.kind === 'range' ? `from ${months[0]} to ${months[1]}` : '';
  const named = month.kind === 'list' ? joined(months) : '';

  if (day.kind === 'any') return named ? `in ${named}` : fromTo;
  if (day.kind !== 'list' || day.values.length > MAX_TIMES) return null;
  const days = `on the ${joined(day.values.map(ordinal))} of ${named || 'each month'}`;
  return fromTo === '' ? days : `${days} ${fromTo}`;
}

/**
 * The days, or null when they have no common shape.
 * @param {Field} day
 * @param {Field} month
 * @param {Field} weekday
 */
function daysText(day, month, weekday) {
  // With both, a day matches when one of them does; that reads differently than people think.
  if (day.kind !== 'any' && weekday.kind !== 'any') return null;
  if (weekday.kind === 'any') return dateText(day, month);
  const [days, months] = [weekdayText(weekday), dateText(day, month)];
  if (days === null || months === null) return null;
  return months === '' ? days : `${days} ${months}`;
}

/**
 * What a cron line says, or null when it has no common shape. The line may be wrong all the same: the
 * backend checks it.
 * @param {string} line of 5 or 6 fields
 * @returns {string | null}
 */
export function cronText(line) {
  const texts = line.trim().split(/\s+/);
  if (texts.length === 5) texts.unshift('0');
  if (texts.length !== 6) return null;

  const [second, minute, hour, day] = texts.slice(0, 4).map((text) => readField(text));
  const month = readField(texts[4], MONTH_NAMES, 1);
  const weekday = readField(texts[5], DAY_NAMES);
  if (!second || !minute || !hour || !day || !month || !weekday) return null;
  if (!isWithin(second, 59) || !isWithin(minute, 59) || !isWithin(hour, 23)) return null;

  const time = timeText(second, minute, hour);
  const days = daysText(day, month, weekday);
  if (time === null || days === null) return null;
  if (days !== '') return `${time.text} ${days}`;
  return time.isRepeated ? time.text : `${time.text} every day`;
}

/**
 * @param {Field} field
 * @param {number} last
 */
function isWithin(field, last) {
  if (field.kind === 'list') return field.values.every((value) => value <= last);
  if (field.kind === 'range') return field.to <= last;
  return field.kind === 'any' || (field.step >= 1 && field.step <= last);
}
