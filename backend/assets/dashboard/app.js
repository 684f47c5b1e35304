// The frame: routes, tabs, and the line that says whether the page is live.

import { byId, h, setAttribute, setText, show } from './dom.js';
import { Keys } from './keys.js';
import operation from './operation.js';
import operations from './operations.js';
import overview from './overview.js';
import queues from './queues.js';
import scheduleForm from './schedule-form.js';
import schedule from './schedule.js';
import schedules from './schedules.js';
import start from './start.js';
import { QUIET_STREAM, liveStream } from './stream.js';
import { makeTabs } from './tabs.js';
import { handleToken } from './token-dialog.js';
import { tabToken } from './token.js';
import worker from './worker.js';
import workers from './workers.js';

/**
 * @typedef {(context: ViewContext) => (() => void) | void} View returns what to do when the user
 *   leaves
 */

/**
 * @typedef {object} Route
 * @property {RegExp} pattern
 * @property {View} view
 * @property {string} name
 * @property {boolean} [isForm] holds what a user has entered
 * @property {string} [tab] the tab that it belongs to, when its path does not say so
 */

/** @type {Route[]} */
const ROUTES = [
  { pattern: /^\/$/, view: overview, name: 'Overview' },
  { pattern: /^\/operations$/, view: operations, name: 'Operations' },
  { pattern: /^\/operations\/([^/]+)$/, view: operation, name: 'Operation' },
  { pattern: /^\/start(?:\/([^/]+))?$/, view: start, name: 'Start an operation', isForm: true },
  { pattern: /^\/schedules$/, view: schedules, name: 'Schedules' },
  { pattern: /^\/schedules\/([^/]+)$/, view: schedule, name: 'Schedule' },
  {
    pattern: /^\/schedules\/([^/]+)\/edit$/, view: scheduleForm, name: 'Change a schedule',
    isForm: true,
  },
  {
    pattern: /^\/new-schedule$/, view: scheduleForm, name: 'New schedule', isForm: true,
    tab: '/schedules',
  },
  { pattern: /^\/queues$/, view: queues, name: 'Queues' },
  { pattern: /^\/workers$/, view: workers, name: 'Workers' },
  { pattern: /^\/workers\/([^/]+)$/, view: worker, name: 'Worker' },
];
/** @type {Route} */
const NOT_FOUND = { pattern: /^/, view: notFound, name: 'Nothing here' };

const LINK_LABELS = {
  connecting: 'Connecting', live: 'Live', lost: 'Disconnected', unready: 'Not ready',
  unauthorized: 'No access',
};

const main = byId('main');
const keys = new Keys([
  { key: '/', what: 'Search operations', act: search },
  { key: 'g h', what: 'Go to the overview (home)', act: () => { location.hash = '#/'; } },
  { key: 'g o', what: 'Go to the operations', act: () => { location.hash = '#/operations'; } },
  { key: 'g t', what: 'Go to the schedules (times)', act: () => { location.hash = '#/schedules'; } },
  { key: 'g q', what: 'Go to the queues', act: () => { location.hash = '#/queues'; } },
  { key: 'g w', what: 'Go to the workers', act: () => { location.hash = '#/workers'; } },
  { key: 'g s', what: 'Start an operation', act: () => { location.hash = '#/start'; } },
]);
let leaveView = () => {};
/** @type {Route} */
let shown = NOT_FOUND;

/** @param {ViewContext} context */
function notFound({ root, listen }) {
  listen(QUIET_STREAM, {});
  show(root, h('section', { class: 'card empty' },
    h('h1', null, 'There is nothing here'), h('a', { href: '#/' }, 'To the overview')));
}

/** Goes to the search field of the view, or to that of the list of operations. */
function search() {
  const field = main.querySelector('input[type="search"]');
  if (field instanceof HTMLInputElement) {
    field.select();
    return;
  }
  location.hash = '#/operations';
  addEventListener('hashchange', () => byId('search').focus(), { once: true });
}

/** @param {string} path */
function markTab(path) {
  for (const tab of document.querySelectorAll('#tabs [data-path]')) {
    const target = tab.getAttribute('data-path') ?? '';
    const isCurrent = target === '/' ? path === '/' : path.startsWith(target);
    setAttribute(tab, 'aria-current', isCurrent ? 'page' : null);
  }
}

/** @param {string} name */
function setTitle(name) {
  document.title = `${name} · KTRDR Workers`;
}

/** @param {string | undefined} part */
function decode(part) {
  try {
    return part === undefined ? undefined : decodeURIComponent(part);
  } catch {
    return part;
  }
}

/** Shows the view that the address names. */
function showView() {
  const hash = location.hash.replace(/^#/, '');
  const [path, search = ''] = (hash.startsWith('/') ? hash : '/').split('?');
  const route = ROUTES.find(({ pattern }) => pattern.test(path)) ?? NOT_FOUND;
  // The view replaces the content, and with it the link that was followed.
  const hadFocus = document.activeElement !== null && document.activeElement !== document.body;

  leaveView();
  leaveView = () => {};
  shown = route;
  liveStream.unlisten();
  keys.setView([]);
  markTab(route.tab ?? path);
  scrollTo(0, 0);
  setTitle(route.name);

  const left = new AbortController();
  const cleanUp = route.view({
    root: main,
    signal: left.signal,
    query: new URLSearchParams(search),
    argument: decode(route.pattern.exec(path)?.[1]),
    listen: (url, handlers) => {
      if (!left.signal.aborted) liveStream.listen(url, handlers);
    },
    setTitle,
    keys: (shortcuts) => keys.setView(shortcuts),
  });
  leaveView = () => {
    left.abort();
    cleanUp?.();
  };
  if (hadFocus) main.focus({ preventScroll: true });
}

/**
 * @param {import('./stream.js').LinkState} state
 * @param {string} reason
 */
function showLinkState(state, reason) {
  const link = byId('link');
  const banner = byId('banner');
  link.dataset.state = state;
  link.querySelectorAll('.link-text').forEach((label) => setText(label, LINK_LABELS[state]));

  const isAway = state === 'lost' || state === 'unready';
  const isBad = isAway || state === 'unauthorized';
  banner.hidden = !isBad;
  document.body.classList.toggle('stale', isBad);
  if (!isBad) return;
  if (!isAway) {
    const text = reason
      ? `${reason}. What you see is from before.`
      : 'This server asks for a token. Nothing is shown without one.';
    show(banner, h('strong', null, 'No access.'), ` ${text}`);
    return;
  }
  const heading = state === 'lost' ? 'Disconnected.' : 'Connected, but not ready.';
  show(banner, h('strong', null, heading),
    ` ${reason}. What you see may be out of date. The page tries again by itself.`);
}

makeTabs(false);
byId('keys-button').addEventListener('click', () => keys.showList());
handleToken();
liveStream.onStateChange(showLinkState);
tabToken.onChange(() => {
  // Another token may see less: what the one before saw goes. A form that is filled in stays.
  if (!tabToken.isWanted && !shown.isForm) showView();
});
// Following the anchor would change the address, which names the view.
document.querySelector('.skip')?.addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener('hashchange', showView);
showView();
