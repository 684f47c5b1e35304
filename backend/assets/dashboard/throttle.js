// Work that is asked for more often than it is worth doing.

/**
 * Does `work` in the next frame, however often it is asked for until then.
 * @param {() => void} work
 */
export function perFrame(work) {
  let isPlanned = false;
  return () => {
    if (isPlanned) return;
    isPlanned = true;
    requestAnimationFrame(() => {
      isPlanned = false;
      work();
    });
  };
}

// A burst of events leads to one run soon after its first event.
const BURST_MS = 30;

/**
 * Asks for the work. With `now`, it does not wait for the gap to the last run.
 * @typedef {((now?: boolean) => void) & { stop(): void }} Throttled
 */

/**
 * Does asynchronous `work` at most once per `gapMs` and never twice at a time, however often it is
 * asked for. A request that comes during a run leads to another run.
 * @param {number} gapMs
 * @param {() => Promise<void>} work
 * @returns {Throttled}
 */
export function atMostEvery(gapMs, work) {
  let lastStart = -Infinity;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let isRunning = false;
  let isWantedAgain = false;
  let isStopped = false;

  async function run() {
    timer = undefined;
    if (isRunning) {
      isWantedAgain = true;
      return;
    }

    isRunning = true;
    lastStart = performance.now();
    try {
      await work();
    } finally {
      isRunning = false;
      if (isWantedAgain) {
        isWantedAgain = false;
        ask();
      }
    }
  }

  function ask(now = false) {
    if (isStopped) return;
    if (timer !== undefined) {
      if (!now) return;
      clearTimeout(timer);
    }
    const wait = Math.max(BURST_MS, gapMs - (performance.now() - lastStart));
    timer = setTimeout(run, now ? 0 : wait);
  }

  function stop() {
    clearTimeout(timer);
    isStopped = true;
  }

  return Object.assign(ask, { stop });
}
