// Icons, drawn as SVG paths.

import { s } from './dom.js';

/** @type {Record<string, string>} */
const PATHS = {
  pending: 'M12 7v5l3 2M12 3a9 9 0 1 0 0 18a9 9 0 0 0 0-18',
  running: 'M8 5.5v13l11-6.5z',
  completed: 'M5 12.5l4.5 4.5L19 7.5',
  failed: 'M7 7l10 10M17 7L7 17',
  cancelled: 'M12 3a9 9 0 1 0 0 18a9 9 0 0 0 0-18M6 6l12 12',
  AVAILABLE: 'M5 12.5l4.5 4.5L19 7.5',
  BUSY: 'M8 5.5v13l11-6.5z',
  TEMPORARILY_UNAVAILABLE: 'M7 7l10 10M17 7L7 17',
  DRAINING: 'M12 4v10M7.5 10.5L12 15l4.5-4.5M6 20h12',
  paused: 'M9 6v12M15 6v12',
  'not-pulling': 'M12 4v9M12 17.5v.5',
  home: 'M4 11l8-7l8 7v9h-5v-6h-6v6H4z',
  list: 'M8 6h12M8 12h12M8 18h12M4 6h.01M4 12h.01M4 18h.01',
  queue: 'M4 6h16M4 12h16M4 18h10M17 16l2.5 2.5L17 21',
  chip: 'M7 7h10v10H7zM10 3v4M14 3v4M10 17v4M14 17v4M3 10h4M3 14h4M17 10h4M17 14h4',
  code: 'M9 5C4 5 9 12 4 12c5 0 0 7 5 7M15 5c5 0 0 7 5 7c-5 0 0 7-5 7',
  back: 'M14 6l-6 6l6 6',
  next: 'M10 6l6 6l-6 6',
  copy: 'M9 9h10v11H9zM6 15H5V4h10v1',
  note: 'M12 4v9M12 17.5v.5',
};

/**
 * An icon beside a word, hidden from screen readers.
 * @param {string} name a name that is not known gives the one for "pending"
 */
export function icon(name) {
  return s('svg', { class: 'icon', viewBox: '0 0 24 24', 'aria-hidden': 'true' },
    s('path', { d: PATHS[name] ?? PATHS.pending }));
}
