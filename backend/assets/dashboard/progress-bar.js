// A bar that shows how far an operation is.

import { h, setAttribute, setText } from './dom.js';
import { percent } from './format.js';

/** @param {string} label for screen readers */
export function progressBar(label) {
  const fill = h('i');
  const value = h('span', { class: 'bar-value' });
  const track = h('div', {
    class: 'bar', role: 'progressbar',
    'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-label': label,
  }, fill);

  return {
    element: h('div', { class: 'progress' }, track, value),
    /**
     * @param {number | undefined} percentage
     * @param {Api.Status} status
     */
    set(percentage, status) {
      const known = Number.isFinite(percentage) ? Number(percentage) : 0;
      const shown = Math.min(100, Math.max(0, known));
      fill.style.transform = `scaleX(${shown / 100})`;
      setAttribute(track, 'aria-valuenow', Math.round(shown));
      setAttribute(track, 'data-status', status);
      setText(value, percent(shown));
    },
  };
}
