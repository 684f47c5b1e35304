// The tabs of the header, which the dashboard and the page at /docs share.

import { byId, h } from './dom.js';
import { icon } from './icons.js';

const TABS = [
  { path: '/', label: 'Overview', icon: 'home' },
  { path: '/operations', label: 'Operations', icon: 'list' },
  { path: '/schedules', label: 'Schedules', icon: 'pending' },
  { path: '/queues', label: 'Queues', icon: 'queue' },
  { path: '/workers', label: 'Workers', icon: 'chip' },
];

/** @param {boolean} isDocs whether this is the page at /docs */
export function makeTabs(isDocs) {
  const tabs = TABS.map(({ path, label, icon: name }) =>
    h('a', { href: isDocs ? `/#${path}` : `#${path}`, 'data-path': path },
      icon(name), h('span', null, label)));
  byId('tabs').append(...tabs,
    h('a', { href: '/docs', 'aria-current': isDocs && 'page' },
      icon('code'), h('span', null, 'API')));
}
