// What happened to an operation, in one line of time: its events, and each attempt in the place of
// its start. No elements here.

/**
 * @typedef {{ kind: 'event', entry: Api.HistoryEntry }} EventItem
 * @typedef {{ kind: 'attempt', attempt: Api.Attempt }} AttemptItem
 */

/** @typedef {{ at: string, item: EventItem | AttemptItem }} Placed */

/**
 * @param {Api.Attempt} attempt
 * @returns {Placed}
 */
const attemptAt = (attempt) => ({ at: attempt.started_at, item: { kind: 'attempt', attempt } });

/**
 * @param {Api.HistoryEntry[]} history
 * @param {Api.Attempt[]} attempts
 * @returns {(EventItem | AttemptItem)[]}
 */
export function timelineOf(history, attempts) {
  const byNumber = new Map(attempts.map((attempt) => [attempt.attempt, attempt]));
  const started = new Set(history
    .filter(({ event, attempt }) => event === 'started' && byNumber.has(attempt ?? 0))
    .map(({ attempt }) => attempt));

  /** @type {(entry: Api.HistoryEntry) => Placed[]} */
  const placed = (entry) => {
    const attempt = byNumber.get(entry.attempt ?? 0);
    if (entry.event === 'started' && attempt) return [attemptAt(attempt)];
    // The attempt says how it ended, and why.
    const isOfAttempt = attempt?.outcome === 'released' || attempt?.outcome === 'failed';
    if (entry.event === 'released' && isOfAttempt) return [];
    return [{ at: entry.time ?? '', item: { kind: 'event', entry } }];
  };
  const items = history.flatMap(placed);

  // An archived operation has no history; its attempts are known all the same.
  for (const attempt of attempts) {
    if (started.has(attempt.attempt)) continue;
    const before = items.findIndex(({ at }) => at > attempt.started_at);
    items.splice(before < 0 ? items.length : before, 0, attemptAt(attempt));
  }
  return items.map(({ item }) => item);
}

/**
 * Why a failed operation was not tried again. Empty when that needs no word.
 * @param {Api.Operation} operation
 */
export function whyNotRetried({ status, error, attempts, execution }) {
  if (status !== 'failed') return '';
  if (error?.permanent) {
    return 'This failure is permanent: the same request would fail again, so it was not retried.';
  }
  const most = Number(execution?.max_attempts);
  if (Number.isInteger(most) && most > 1 && attempts.length >= most) {
    return `All ${most} attempts were used.`;
  }
  return '';
}
