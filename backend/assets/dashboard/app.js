// The frame: routes, tabs, and the line that says whether what you see is live.

import { h, icon, show, text } from './dom.js';
import { QUIET, listen, onLink, unlisten } from './live.js';
import overview from './overview.js';
import operations from './operations.js';
import operation from './operation.js';
import start from './start.js';
import workers from './workers.js';

const TABS = [
  { path: '/', label: 'Overview', icon: 'home' },
  { path: '/operations', label: 'Operations', icon: 'list' },
  { path: '/workers', label: 'Workers', icon: 'chip' },
];

const ROUTES = [
  [/^\/$/, overview, 'Overview'],
  [/^\/operations$/, operations, 'Operations'],
  [/^\/operations\/([^/]+)$/, operation, 'Operation'],
  [/^\/start(?:\/([^/]+))?$/, start, 'Start an operation'],
  [/^\/workers$/, workers, 'Workers'],
];

const main = document.getElementById('main');
const banner = document.getElementById('banner');
const link = document.getElementById('link');
let leave = () => {};

for (const tab of TABS) {
  const item = h('a', { href: `#${tab.path}` }, icon(tab.icon), h('span', null, tab.label));
  item.dataset.path = tab.path;
  document.getElementById('tabs').append(item);
}
document.getElementById('tabs').append(h('a', { href: '/docs' }, icon('code'), h('span', null, 'API')));

function route() {
  const asked = location.hash.replace(/^#/, '');
  const hash = asked.startsWith('/') ? asked : '/';
  const [path, search = ''] = hash.split('?');
  const found = ROUTES.map(([pattern, view, name]) => [pattern.exec(path), view, name]).find(([match]) => match);
  // The view replaces the content, and with it the link that was followed.
  const focused = document.activeElement !== null && document.activeElement !== document.body;
  leave();
  leave = () => {};
  unlisten();
  for (const tab of document.querySelectorAll('#tabs [data-path]')) {
    const current = tab.dataset.path === '/' ? path === '/' : path.startsWith(tab.dataset.path);
    if (current) tab.setAttribute('aria-current', 'page');
    else tab.removeAttribute('aria-current');
  }
  scrollTo(0, 0);
  const [match, view, name] = found ?? [[], nothing, 'Nothing here'];
  document.title = `${name} · KTRDR Workers`;
  const gone = new AbortController();
  const clean = view({
    root: main, signal: gone.signal, query: new URLSearchParams(search),
    argument: match[1] === undefined ? undefined : decode(match[1]),
    listen: (url, handlers) => { if (!gone.signal.aborted) listen(url, handlers); },
    title: (value) => { document.title = `${value} · KTRDR Workers`; },
  });
  leave = () => { gone.abort(); clean?.(); };
  if (focused) main.focus({ preventScroll: true });
}

function nothing({ root, listen }) {
  listen(QUIET, {});
  show(root, h('section', { class: 'card empty' }, h('h1', null, 'There is nothing here'), h('a', { href: '#/' }, 'To the overview')));
}

function decode(part) {
  try { return decodeURIComponent(part); } catch { return part; }
}

const WORDS = { connecting: 'Connecting', live: 'Live', lost: 'Disconnected', unready: 'Not ready' };
onLink((state, reason) => {
  link.dataset.state = state;
  text(link.querySelector('.link-text'), WORDS[state]);
  const bad = state === 'lost' || state === 'unready';
  banner.hidden = !bad;
  document.body.classList.toggle('stale', bad);
  if (bad) {
    const what = state === 'lost' ? 'Disconnected.' : 'Connected, but not ready.';
    show(banner, h('strong', null, what), ` ${reason}. What you see may be out of date; trying again…`);
  }
});

// An anchor would change the address, which names the view.
document.querySelector('.skip').addEventListener('click', (event) => {
  event.preventDefault();
  main.focus();
});
addEventListener('hashchange', route);
route();
