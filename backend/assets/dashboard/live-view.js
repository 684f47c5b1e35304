// When a view fetches what it shows: once its event stream is open, so that no change is missed
// between the two and nothing is fetched twice; and at an interval, where no event tells.

// A stream that does not open must not keep the page empty.
const OPEN_WAIT_MS = 700;

/**
 * Follows a stream, and fetches when it opens and when events were lost.
 * @param {Pick<ViewContext, 'listen' | 'signal'>} context
 * @param {string} url
 * @param {StreamHandlers} handlers
 * @param {(now: boolean) => void} refresh
 */
export function follow({ listen, signal }, url, handlers, refresh) {
  const timer = setTimeout(() => refresh(true), OPEN_WAIT_MS);
  const stopWaiting = () => clearTimeout(timer);
  signal.addEventListener('abort', stopWaiting, { once: true });

  listen(url, {
    reset: () => refresh(true),
    ...handlers,
    open: (missed) => {
      stopWaiting();
      refresh(true);
      handlers.open?.(missed);
    },
  });
}

/**
 * Repeats `refresh` at an interval while somebody may be looking.
 * @param {number} everyMs
 * @param {() => void} refresh
 * @returns {() => void} ends it
 */
export function refreshEvery(everyMs, refresh) {
  const timer = setInterval(() => {
    if (!document.hidden) refresh();
  }, everyMs);
  return () => clearInterval(timer);
}
