// The backend's clock. Browser and backend clocks differ, and ages are measured with the backend's.

let skewMs = 0;

// The Date header has whole seconds and arrives late, so a small difference means nothing.
const TOLERANCE_MS = 2000;

/**
 * Learns the difference between the clocks from one answer.
 * @param {string | null} dateHeader
 * @param {number} sentAt when the request was sent, by the browser's clock
 * @param {number} receivedAt when the answer came
 */
export function recordServerTime(dateHeader, sentAt, receivedAt = Date.now()) {
  const server = Date.parse(dateHeader ?? '');
  if (!Number.isFinite(server)) return;

  // The header is cut to the second, so on average it is half a second too early.
  const difference = server + 500 - (sentAt + receivedAt) / 2;
  skewMs = Math.abs(difference) < TOLERANCE_MS ? 0 : difference;
}

/** Milliseconds since 1970 by the backend's clock. */
export function serverNow() {
  return Date.now() + skewMs;
}
