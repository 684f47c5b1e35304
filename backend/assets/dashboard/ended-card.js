// What ended in the last hour: how long it waited and ran, and why some of it failed.

import { failureAddress } from './attention.js';
import { h, keyedList, setAttribute, setText } from './dom.js';
import { count, duration, title } from './format.js';
import { serverNow } from './server-clock.js';

const MAX_FAILURES = 12;

export function endedCard() {
  const note = h('span', { class: 'muted' });
  const waited = quantilesFigure('Waited');
  const ran = quantilesFigure('Ran');
  const body = h('tbody');
  const rows = keyedList(body, failureKey, failureRow);
  const failures = h('table', { class: 'grid' },
    h('thead', null, h('tr', null,
      h('th', { scope: 'col' }, 'Failed'), h('th', { scope: 'col', class: 'num' }, 'Operations'))),
    body);
  const more = h('p', { class: 'muted' });
  const element = h('section', { class: 'card', id: 'ended' },
    h('header', null, h('h2', null, 'Ended in the last hour'), note),
    h('dl', { class: 'figures' }, waited.element, ran.element),
    h('div', { class: 'scroll' }, failures), more);

  return {
    element,
    /** @param {Api.EndedStats} ended */
    set({ operations, is_partial: isPartial, waiting, running, failures: all, window_seconds: window }) {
      const operationCount = `${count(operations)} ${operations === 1 ? 'operation' : 'operations'}`;
      setText(note, isPartial ? `the newest ${operationCount}` : operationCount);
      waited.set(waiting);
      ran.set(running);

      const since = serverNow() - window * 1000;
      rows.set(all.slice(0, MAX_FAILURES).map((failure) => ({ failure, since })));
      failures.hidden = all.length === 0;
      const left = all.length - MAX_FAILURES;
      setText(more, all.length === 0 ? 'None failed.' : left > 0 ? `and ${count(left)} more kinds` : '');
    },
  };
}

/** @param {string} label */
function quantilesFigure(label) {
  const half = h('span');
  const most = h('small');
  return {
    element: h('div', null, h('dt', null, label), h('dd', null, half, ' ', most)),
    /** @param {Api.Quantiles | null} quantiles */
    set(quantiles) {
      setText(half, duration(quantiles?.p50));
      setAttribute(half, 'title', quantiles && 'Half of them took no longer (p50)');
      setText(most, quantiles ? `p95 ${duration(quantiles.p95)}` : '');
      setAttribute(most, 'title', quantiles && '95 of 100 took no longer');
    },
  };
}

/** @typedef {{ failure: Api.FailureCount, since: number }} Shown */

/** @param {Shown} shown */
const failureKey = ({ failure }) => `${failure.operation_type} ${failure.error_code}`;

function failureRow() {
  const link = h('a');
  const operations = h('td', { class: 'num' });
  return {
    element: h('tr', null, h('th', { scope: 'row' }, link), operations),
    /** @param {Shown} shown */
    update({ failure, since }) {
      const { operation_type: type, error_code: code } = failure;
      setText(link, `${title(type)}: ${title(code)}`);
      setAttribute(link, 'href', failureAddress(failure, since));
      setText(operations, count(failure.operations));
    },
  };
}
