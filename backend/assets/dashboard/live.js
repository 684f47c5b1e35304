// One event stream for the page, and whether what it shows is live.
//
// EventSource reconnects by itself and tells the server where it was (Last-Event-ID); what it gives up on (an answer other
// than 200) is opened anew here. After every gap the page fetches again what it shows.
//
// An open stream says only that the backend is there; whether NATS is there too, /ready says. Both make "live".

import { call } from './api.js';

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 5000;
// How often /ready is asked: while all is well, and while something is not.
const LOOK = 10000;
const LOOK_AGAIN = 2000;
const PATIENCE = 5000;
// A browser has few connections per server: a tab nobody looks at gives its one back.
const HIDDEN = 15000;

// Brings nothing: for pages that only want to know whether the backend is there.
export const QUIET = '/api/v1/events?operation_type=none&worker_type=none';

let source = null;
let path = '';
let handlers = {};
let pause = FIRST_PAUSE;
let timer = 0;
let hiding = 0;
let state = 'connecting';
let reason = '';
let told = () => {};
// Whether the stream has been open without a gap that we know of, and since when it is being opened.
let whole = false;
let begun = 0;

function become(next, why = '') {
  if (state === next && reason === why) return;
  state = next;
  reason = why;
  told(state, reason);
}

export const onLink = (callback) => { told = callback; };

function open() {
  clearTimeout(timer);
  source?.close();
  const mine = new EventSource(path);
  source = mine;
  whole = false;
  begun = performance.now();
  let gap = false;
  mine.onopen = () => {
    if (mine !== source) return;
    pause = FIRST_PAUSE;
    const lost = gap || state === 'lost' || state === 'unready';
    gap = false;
    whole = true;
    handlers.open?.(lost);
    look();
  };
  mine.onerror = () => {
    if (mine !== source) return;
    gap = true;
    whole = false;
    begun = performance.now();
    // Not ready is the better word for a backend that answers.
    if (state !== 'unready') become('lost', 'The connection to the backend was lost');
    if (mine.readyState === EventSource.CLOSED) {
      again();
      handlers.refused?.();
    }
    look();
  };
  for (const name of ['operation', 'progress', 'metrics', 'worker']) {
    mine.addEventListener(name, (event) => {
      if (mine === source) handlers[name]?.(JSON.parse(event.data));
    });
  }
  mine.addEventListener('reset', () => { if (mine === source) handlers.reset?.(); });
}

function again() {
  clearTimeout(timer);
  timer = setTimeout(open, pause * (0.7 + Math.random() * 0.6));
  pause = Math.min(pause * 2, LONGEST_PAUSE);
}

function close() {
  clearTimeout(timer);
  source?.close();
  whole = false;
}

// What happens is told to `next` from now on. `open(lost)`: the stream is open, and `lost` when something may have been
// missed; `reset`: something was; `refused`: the backend did not give this stream.
export function listen(url, next) {
  handlers = next;
  if (url === path && source && source.readyState !== EventSource.CLOSED) {
    if (source.readyState === EventSource.OPEN) next.open?.(false);
    return;
  }
  path = url;
  pause = FIRST_PAUSE;
  // A hidden tab opens it when it is looked at; the one it has would bring what nobody asked for.
  if (document.hidden) close();
  else open();
}

// Nobody listens until the next view does.
export function unlisten() {
  handlers = {};
}

// Asks /ready: says more about what is wrong, and notices a line that is dead without having been closed.
let looking = false;
let lookOnce = false;
let answered = false;
let planned = 0;
async function look() {
  if (looking) {
    lookOnce = true;
    return;
  }
  looking = true;
  clearTimeout(planned);
  let problem = null;
  try { await call('GET', '/ready', { patience: PATIENCE }); } catch (error) { problem = error; }
  looking = false;
  if (problem === null) ready();
  else {
    answered = false;
    if (problem.status !== 0) become('unready', problem.message);
    else {
      whole = false;
      become('lost', 'The backend cannot be reached');
    }
  }
  if (lookOnce) {
    lookOnce = false;
    look();
  } else plan();
}

function plan() {
  clearTimeout(planned);
  planned = setTimeout(() => {
    if (document.hidden) plan();
    else look();
  }, state === 'live' ? LOOK : LOOK_AGAIN);
}

function ready() {
  const first = !answered;
  answered = true;
  if (whole) {
    const before = state;
    become('live');
    // The stream was there all the time; what was fetched meanwhile may have failed.
    if (before === 'unready') handlers.open?.(true);
    return;
  }
  if (!path || document.hidden || !source) return;
  // Open, though it was given up: nobody knows whether anything still comes. Closed: it is tried again soon anyway, but a
  // backend that has just come back need not be waited for. Connecting: the browser does it, unless that hangs, too.
  const stuck = source.readyState === EventSource.CONNECTING && performance.now() - begun > LOOK;
  if (source.readyState === EventSource.OPEN || stuck || (first && source.readyState === EventSource.CLOSED)) open();
}

// A request failed: when that may be the backend's or NATS's fault, the line above need not wait to say so.
export function doubt(error) {
  if (state === 'live' && (error.status === 0 || error.status >= 500)) look();
}

plan();
addEventListener('online', () => { if (path && !document.hidden) open(); });
addEventListener('offline', () => {
  whole = false;
  become('lost', 'This device is offline');
});
document.addEventListener('visibilitychange', () => {
  clearTimeout(hiding);
  if (document.hidden) hiding = setTimeout(close, HIDDEN);
  else if (path && (!source || source.readyState === EventSource.CLOSED)) {
    open();
    handlers.reset?.();
  } else look();
});

// Calls `work` at the next frame, however often it is asked for.
export function perFrame(work) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; work(); });
  };
}

// Calls the asynchronous `work` soon, never twice at a time, and at most once per `gap`, however often it is asked for.
export function atMostEvery(gap, work) {
  let last = 0;
  let wait = 0;
  let running = false;
  let once = false;
  let stopped = false;
  const run = async () => {
    wait = 0;
    if (running) { once = true; return; }
    running = true;
    last = performance.now();
    try { await work(); } finally {
      running = false;
      if (once) { once = false; ask(); }
    }
  };
  const ask = (now = false) => {
    if (stopped) return;
    if (wait !== 0) {
      if (!now) return;
      clearTimeout(wait);
    }
    wait = setTimeout(run, now ? 0 : Math.max(30, gap - (performance.now() - last)));
  };
  ask.stop = () => { clearTimeout(wait); stopped = true; };
  return ask;
}
