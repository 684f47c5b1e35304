// One worker: what it has, what it runs, and what it ran.

import { shortId } from './about.js';
import { actionButton } from './action-button.js';
import { operationAddress, operationsAddress } from './addresses.js';
import { showAge } from './age.js';
import { api } from './api.js';
import { copyButton } from './copy.js';
import { h, setText, show } from './dom.js';
import { count, percent, title } from './format.js';
import { icon } from './icons.js';
import { follow, refreshEvery } from './live-view.js';
import { isNotFound, partsOf } from './not-found.js';
import { COLUMN_COUNT, operationRows, tableHead } from './operation-row.js';
import { problemLine } from './problem-line.js';
import { rowKeys } from './row-keys.js';
import { skeletonBody } from './skeleton.js';
import { atMostEvery } from './throttle.js';
import { toast } from './toast.js';
import { capabilityLabels } from './worker-facts.js';
import { workerChip } from './worker-row.js';

const NEWEST = 20;
const REFRESH_MS = 10000;

/** @param {ViewContext} context */
export default function workerView(context) {
  const { root, signal, argument = '', setTitle, keys } = context;
  const id = argument;
  const chip = workerChip();
  const drain = h('div', { class: 'actions' });
  /** @type {boolean | null} */
  let isDraining = null;
  const type = h('span', { class: 'muted' });
  const tags = h('div', { class: 'tags' });
  const facts = workerFacts();
  const running = h('ul', { class: 'running-list' });
  const problem = problemLine();
  const loading = skeletonBody(COLUMN_COUNT, 4);
  const body = h('tbody');
  const rows = operationRows(body);
  const empty = h('p', { class: 'empty', hidden: true }, 'It has run nothing that is retained.');

  const back = h('a', { class: 'back', href: '#/workers' }, icon('back'), 'Workers');
  const showParts = partsOf(root, [
    back,
    h('div', { class: 'page-head op-head' },
      h('div', null,
        h('h1', { class: 'op-id-title' }, id, ' ', copyButton('the id', () => id)), type),
      h('div', { class: 'chips' }, chip.element, drain)),
    problem.element,
    h('section', { class: 'card', id: 'worker' }, tags, facts.element, running),
    h('section', { class: 'card flush' },
      h('header', null, h('h2', null, 'Newest operations'),
        h('a', { href: operationsAddress({ worker_id: id }) }, 'All that it ran')),
      h('div', { class: 'scroll' },
        h('table', { class: 'grid rows' }, tableHead(), loading, body)),
      empty),
  ], [back, problem.element]);
  setTitle(id);
  keys(rowKeys(body));

  const refresh = atMostEvery(1000, async () => {
    const [worker, page] = await Promise.allSettled([
      api.worker(id, signal), api.operations({ worker_id: id, limit: NEWEST }, signal),
    ]);
    if (signal.aborted) return;
    loading.remove();
    const failed = [worker, page].find((one) => one.status === 'rejected');
    if (failed?.status === 'rejected') problem.show(failed.reason);
    else problem.clear();
    showParts(!isNotFound(worker, page));
    if (worker.status === 'fulfilled') draw(worker.value);
    if (page.status === 'fulfilled') {
      rows.set(page.value.operations);
      empty.hidden = page.value.operations.length > 0;
    }
  });

  /** @param {Api.Worker} worker */
  function draw(worker) {
    chip.update(worker);
    drawDrain(worker.status);
    setText(type, title(worker.worker_type));
    show(tags, capabilityLabels(worker).map((label) => h('span', { class: 'tag' }, label)));
    facts.set(worker);
    show(running, (worker.current_operations ?? []).map((one) => h('li', null,
      icon('running'),
      h('a', { class: 'op-id', href: operationAddress(one.operation_id), title: one.operation_id },
        shortId(one.operation_id)),
      h('span', { class: 'muted' }, percent(one.progress?.percentage),
        one.attempt > 1 && `, attempt ${one.attempt}`))));
  }

  /** @param {Api.WorkerStatus} status */
  function drawDrain(status) {
    const isSilent = status === 'TEMPORARILY_UNAVAILABLE';
    if (isSilent || isDraining === (status === 'DRAINING')) return;
    isDraining = status === 'DRAINING';
    show(drain, isDraining
      ? actionButton('Take work again', id, '', () => tell(api.undrain, 'takes work again'))
      : actionButton('Drain', id, '', () => tell(api.drain, 'takes no more work'),
        'Take no more work?'));
  }

  /**
   * @param {(id: string) => Promise<void>} send
   * @param {string} what
   */
  async function tell(send, what) {
    await send(id);
    toast(`${id} ${what}`);
    refresh(true);
  }

  follow(context, '/api/v1/events', {
    worker: (event) => {
      if (event.worker_id === id) refresh();
    },
    operation: (operation) => {
      if (operation.worker_id === id || rows.get(operation.operation_id)) refresh();
    },
    progress: (event) => {
      if (event.worker_id === id) rows.get(event.operation_id)?.setProgress(event.progress);
    },
  }, refresh);
  const stopRepeating = refreshEvery(REFRESH_MS, refresh);
  return () => {
    stopRepeating();
    refresh.stop();
  };
}

function workerFacts() {
  const heartbeat = h('span');
  const pull = h('span');
  const since = h('span');
  const finished = h('span');
  const missed = h('span');
  const version = h('span');
  const address = h('span', { class: 'breakable' });
  /** @type {[string, HTMLElement][]} */
  const pairs = [
    ['Last heartbeat', heartbeat], ['Heartbeats missed', missed], ['Last pull', pull],
    ['Started', since], ['Attempts finished', finished], ['Version', version],
    ['Address', address],
  ];
  return {
    element: h('dl', { class: 'pairs facts' },
      pairs.map(([label, value]) => h('div', null, h('dt', null, label), h('dd', null, value)))),
    /** @param {Api.Worker} worker */
    set(worker) {
      showAge(heartbeat, worker.last_health_check);
      showAge(pull, worker.last_pull_at);
      showAge(since, worker.registered_at);
      setText(missed, count(worker.health_check_failures));
      setText(finished, worker.fenced > 0
        ? `${count(worker.finished)}, ${count(worker.fenced)} of them fenced`
        : count(worker.finished));
      setText(version, worker.version);
      setText(address, worker.endpoint_url);
    },
  };
}
