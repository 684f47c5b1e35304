// Numbers and times as people read them.

const whole = new Intl.NumberFormat('en');
const clock = new Intl.DateTimeFormat(undefined, { dateStyle: 'medium', timeStyle: 'medium', hour12: false });
const daytime = new Intl.DateTimeFormat(undefined, { hour: '2-digit', minute: '2-digit', second: '2-digit', hour12: false });

export const count = (value) => (Number.isFinite(value) ? whole.format(value) : '–');

export function number(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return '–';
  if (Number.isInteger(value)) return whole.format(value);
  const size = Math.abs(value);
  if (size >= 1000) return whole.format(Math.round(value * 100) / 100);
  if (size >= 0.001) return String(Number(value.toPrecision(6)));
  return value.toExponential(3);
}

// 1234.5 → "20m 34s": two units are enough to judge by.
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return '–';
  if (seconds < 0) return '0s';
  if (seconds < 1) return `${Math.round(seconds * 1000)}ms`;
  if (seconds < 10 && !Number.isInteger(seconds)) return `${seconds.toFixed(1)}s`;
  let left = Math.round(seconds);
  const units = [['d', 86400], ['h', 3600], ['m', 60], ['s', 1]];
  const parts = [];
  for (const [name, size] of units) {
    const amount = Math.floor(left / size);
    if (amount > 0 || parts.length > 0) parts.push(`${amount}${name}`);
    left -= amount * size;
  }
  return parts.slice(0, 2).join(' ') || '0s';
}

// Browser and server clocks differ; ages are measured with the server's.
let skew = 0;
export function heardServerTime(header, sentAt) {
  const server = Date.parse(header ?? '');
  // The header has whole seconds.
  if (Number.isFinite(server)) {
    const apart = server + 500 - (sentAt + Date.now()) / 2;
    skew = Math.abs(apart) < 2000 ? 0 : apart;
  }
}
export const now = () => Date.now() + skew;

export function ago(time) {
  const at = Date.parse(time ?? '');
  if (!Number.isFinite(at)) return '–';
  const seconds = Math.max(0, (now() - at) / 1000);
  return seconds < 1.5 ? 'just now' : `${duration(Math.round(seconds))} ago`;
}

export function moment(time) {
  const at = Date.parse(time ?? '');
  return Number.isFinite(at) ? clock.format(at) : '–';
}

export function timeOfDay(time) {
  const at = typeof time === 'number' ? time : Date.parse(time ?? '');
  return Number.isFinite(at) ? daytime.format(at) : '–';
}

export function percent(value) {
  return Number.isFinite(value) ? `${value < 10 && value % 1 !== 0 ? value.toFixed(1) : Math.floor(value)} %` : '–';
}

// data_processing → Data processing
export const title = (name) => {
  const words = String(name).replaceAll(/[_-]+/g, ' ').trim();
  return words.charAt(0).toUpperCase() + words.slice(1);
};

// Elements that show an age say so with data-ago; one timer serves them all.
export function ageing(element, time) {
  if (element.dataset.ago !== (time ?? '')) {
    element.dataset.ago = time ?? '';
    element.title = time ? moment(time) : '';
  }
  const wanted = ago(time);
  if (element.textContent !== wanted) element.textContent = wanted;
}
setInterval(() => {
  for (const element of document.querySelectorAll('[data-ago]')) {
    const wanted = ago(element.dataset.ago);
    if (element.textContent !== wanted) element.textContent = wanted;
  }
}, 1000);
