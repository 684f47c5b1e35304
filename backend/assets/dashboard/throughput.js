// Sums over the last minutes that the overview shows.

import { count } from './format.js';

/** @param {Api.Minute} minute */
const ended = ({ completed, failed, cancelled }) => completed + failed + cancelled;

/**
 * How many operations ended in the last 60 seconds, estimated: the minute that is running, and the
 * rest of the one before.
 * @param {Api.Minute[]} minutes at least two, oldest first
 * @param {number} now milliseconds since 1970
 */
export function endedInLastMinute(minutes, now) {
  const [before, current] = minutes.slice(-2);
  const elapsed = (now - Date.parse(current.minute)) / 60000;
  const shareOfBefore = 1 - Math.min(1, Math.max(0, elapsed));
  return Math.round(ended(current) + ended(before) * shareOfBefore);
}

/** @param {Api.Minute[]} minutes */
export function endedIn(minutes) {
  return minutes.reduce((sum, minute) => sum + ended(minute), 0);
}

/**
 * How many operations failed, and their share of all that ended.
 * @param {Api.Minute[]} minutes
 */
export function failuresIn(minutes) {
  const failed = minutes.reduce((sum, minute) => sum + minute.failed, 0);
  const all = endedIn(minutes);
  if (all === 0) return { failed, share: 'none ended' };

  const percent = (failed / all) * 100;
  const shown = percent > 0 && percent < 1 ? '< 1' : String(Math.floor(percent));
  return { failed, share: `${shown} % of ${count(all)} that ended` };
}
