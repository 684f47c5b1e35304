// Sums over the last minutes that the overview shows.

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
 * Failed operations, and all that completed or failed.
 * @param {Api.Minute[]} minutes
 */
export function failuresIn(minutes) {
  let failed = 0;
  let finished = 0;
  for (const minute of minutes) {
    failed += minute.failed;
    finished += minute.completed + minute.failed;
  }
  return { failed, finished };
}
