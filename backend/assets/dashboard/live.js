// One event stream for the page, and whether the backend can be heard.
//
// EventSource reconnects by itself and tells the server where it was (Last-Event-ID); what it gives up on (an answer other
// than 200) is opened anew here. After every gap the page fetches again what it shows.

import { call } from './api.js';

const FIRST_PAUSE = 500;
const LONGEST_PAUSE = 5000;
const LOOK = 10000;
// A browser has few connections per server: a tab nobody looks at gives its one back.
const HIDDEN = 15000;

let source = null;
let path = '';
let handlers = {};
let pause = FIRST_PAUSE;
let timer = 0;
let hiding = 0;
let state = 'connecting';
let reason = '';
let told = () => {};

function become(next, why = '') {
  if (state === next && reason === why) return;
  const before = state;
  state = next;
  reason = why;
  told(state, reason, before);
}

export const onLink = (callback) => { told = callback; };
export const linkState = () => state;

function open() {
  clearTimeout(timer);
  source?.close();
  const mine = new EventSource(path);
  source = mine;
  let gap = false;
  mine.onopen = () => {
    pause = FIRST_PAUSE;
    const lost = gap || state === 'lost' || state === 'unready';
    gap = false;
    become('live');
    handlers.open?.(lost);
  };
  mine.onerror = () => {
    if (mine !== source) return;
    gap = true;
    // Not ready is the better word for a backend that answers.
    if (state !== 'unready') become('lost', 'The connection to the backend was lost');
    if (mine.readyState === EventSource.CLOSED) again();
    look();
  };
  for (const name of ['operation', 'progress', 'metrics', 'worker']) {
    mine.addEventListener(name, (event) => {
      if (mine === source) handlers[name]?.(JSON.parse(event.data));
    });
  }
  mine.addEventListener('reset', () => handlers.reset?.());
}

function again() {
  clearTimeout(timer);
  timer = setTimeout(open, pause * (0.7 + Math.random() * 0.6));
  pause = Math.min(pause * 2, LONGEST_PAUSE);
}

// What happens is told to `next` from now on.
export function listen(url, next) {
  handlers = next;
  if (url === path && source && source.readyState !== EventSource.CLOSED) {
    if (source.readyState === EventSource.OPEN) next.open?.(false);
    return;
  }
  path = url;
  pause = FIRST_PAUSE;
  if (!document.hidden) open();
}

// Says more about what is wrong, and notices a line that is dead without having been closed.
async function look() {
  try {
    await call('GET', '/ready', { patience: 5000 });
    if (source?.readyState === EventSource.CLOSED && state !== 'live') open();
    else if (state === 'unready') become('live');
  } catch (error) {
    if (error.status === 0) become('lost', 'The backend cannot be reached');
    else become('unready', error.message);
  }
}

setInterval(() => { if (!document.hidden) look(); }, LOOK);
addEventListener('online', () => { if (path) open(); });
addEventListener('offline', () => become('lost', 'This device is offline'));
document.addEventListener('visibilitychange', () => {
  clearTimeout(hiding);
  if (document.hidden) {
    hiding = setTimeout(() => { clearTimeout(timer); source?.close(); }, HIDDEN);
  } else if (path && (!source || source.readyState === EventSource.CLOSED)) {
    open();
    handlers.reset?.();
  }
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
    if (wait !== 0) {
      if (!now) return;
      clearTimeout(wait);
    }
    wait = setTimeout(run, now ? 0 : Math.max(30, gap - (performance.now() - last)));
  };
  ask.stop = () => { clearTimeout(wait); wait = -1; };
  return ask;
}
