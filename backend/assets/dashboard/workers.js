// The workers: status, capabilities, what each runs, last heartbeat.

import { operationAddress } from './addresses.js';
import { showAge } from './age.js';
import { api, asApiError } from './api.js';
import { h, keyedList, setAttribute, setText, show } from './dom.js';
import { count, percent, title } from './format.js';
import { icon } from './icons.js';
import { serverNow } from './server-clock.js';
import { statusChip } from './status.js';
import { liveStream } from './stream.js';
import { atMostEvery } from './throttle.js';
import {
  WORKER_STATUS_LABELS, capabilityLabels, isNotPulling, sortedByNeed,
} from './worker-facts.js';

const REFRESH_MS = 5000;

/** @param {ViewContext} context */
export default function workers({ root, signal, listen }) {
  const body = h('div', { class: 'worker-grid' });
  const cards = keyedList(body, (/** @type {Api.Worker} */ one) => one.worker_id, workerCard);
  const empty = h('section', { class: 'card empty', hidden: true },
    h('p', null, 'No worker is here. Start one with:'),
    h('pre', null, 'WORKER_TYPE=dummy ktrdr-worker'));
  const summary = h('span', { class: 'muted' }, ' ');
  const problem = h('p', { class: 'problem', hidden: true });
  show(root,
    h('div', { class: 'page-head' }, h('h1', null, 'Workers'), summary),
    problem, body, empty);

  const refresh = atMostEvery(1000, async () => {
    try {
      const list = await api.workers(signal);
      problem.hidden = true;
      cards.set(sortedByNeed(list, serverNow()));
      empty.hidden = list.length > 0;
      setText(summary, describe(list));
    } catch (thrown) {
      if (signal.aborted) return;
      const error = asApiError(thrown);
      liveStream.checkAfter(error);
      problem.hidden = false;
      setText(problem, error.message);
    }
  });

  listen('/api/v1/events', {
    open: () => refresh(true),
    reset: () => refresh(true),
    worker: () => refresh(),
    operation: () => refresh(),
    progress: (event) => cards.get(event.worker_id)?.setProgress(event),
  });
  refresh(true);
  const timer = setInterval(() => refresh(), REFRESH_MS);
  return () => {
    clearInterval(timer);
    refresh.stop();
  };
}

/** @param {Api.Worker[]} workers */
function describe(workers) {
  if (workers.length === 0) return '';
  const having = (/** @type {Api.WorkerStatus} */ status) =>
    workers.filter((worker) => worker.status === status).length;
  return `${count(workers.length)} in all: ${having('BUSY')} busy, `
    + `${having('AVAILABLE')} available, ${having('TEMPORARILY_UNAVAILABLE')} silent`;
}

function workerCard() {
  const name = h('h2', { class: 'worker-name' });
  const type = h('span', { class: 'muted' });
  const chip = statusChip();
  const notPulling = h('span', {
    class: 'chip', 'data-status': 'not-pulling', hidden: true,
    title: 'It sends heartbeats, but has not pulled for a while',
  }, icon('not-pulling'), 'not pulling');
  const tags = h('div', { class: 'tags' });
  const running = runningList();
  const facts = factList();
  const element = h('article', { class: 'card worker-card' },
    h('header', null,
      h('div', { class: 'worker-title' }, name, type),
      h('div', { class: 'chips' }, notPulling, chip.element)),
    tags, running.element, facts.element);
  let shownTags = '';

  /** @param {Api.Worker} worker */
  function update(worker) {
    setAttribute(element, 'data-id', worker.worker_id);
    setAttribute(element, 'data-status', worker.status);
    setText(name, worker.worker_id);
    setText(type, title(worker.worker_type));
    chip.update(worker.status, WORKER_STATUS_LABELS[worker.status] ?? worker.status);
    notPulling.hidden = !isNotPulling(worker, serverNow());

    const labels = capabilityLabels(worker);
    if (labels.join('\n') !== shownTags) {
      shownTags = labels.join('\n');
      show(tags, labels.map((label) => h('span', { class: 'tag' }, label)));
    }
    running.set(worker.current_operations ?? []);
    facts.set(worker);
  }

  return { element, update, setProgress: running.setProgress };
}

function factList() {
  const heartbeat = h('span');
  const pull = h('span');
  const since = h('span');
  const finished = h('span');
  const version = h('span');
  const address = h('span', { class: 'breakable' });
  /** @type {[string, HTMLElement][]} */
  const pairs = [
    ['Last heartbeat', heartbeat], ['Last pull', pull], ['Up since', since],
    ['Finished', finished], ['Version', version], ['Address', address],
  ];
  const element = h('dl', { class: 'pairs' },
    pairs.map(([label, value]) => [h('dt', null, label), h('dd', null, value)]));

  return {
    element,
    /** @param {Api.Worker} worker */
    set(worker) {
      const { fenced, health_check_failures: missed } = worker;
      showAge(heartbeat, worker.last_health_check);
      showAge(pull, worker.last_pull_at);
      showAge(since, worker.registered_at);
      setText(finished, [
        count(worker.finished),
        fenced > 0 && `${count(fenced)} fenced`,
        missed > 0 && `${count(missed)} heartbeats missed`,
      ].filter(Boolean).join(', '));
      setText(version, worker.version);
      setText(address, worker.endpoint_url);
    },
  };
}

/** @param {{ operation_id: string, attempt: number }} attempt */
const attemptKey = ({ operation_id: id, attempt }) => `${id} ${attempt}`;

function runningList() {
  const list = h('div', { class: 'running-list' });
  const rows = keyedList(list, attemptKey, runningRow);
  const idle = h('p', { class: 'muted idle' }, 'Runs nothing');
  return {
    element: h('div', { class: 'running-box' }, list, idle),
    /** @param {Api.CurrentOperation[]} operations */
    set(operations) {
      rows.set(operations);
      idle.hidden = operations.length > 0;
    },
    /** @param {Api.ProgressEvent} event */
    setProgress(event) {
      rows.get(attemptKey(event))?.setProgress(event.progress);
    },
  };
}

function runningRow() {
  const link = h('a', { class: 'op-id' });
  const value = h('span', { class: 'muted' });
  let attempt = 1;

  /** @param {Api.CurrentOperation} operation */
  function update(operation) {
    setAttribute(link, 'href', operationAddress(operation.operation_id));
    setText(link, operation.operation_id);
    attempt = operation.attempt;
    setProgress(operation.progress);
  }

  /** @param {Api.Progress} progress */
  function setProgress(progress) {
    const suffix = attempt > 1 ? `, attempt ${attempt}` : '';
    setText(value, `${percent(progress?.percentage)}${suffix}`);
  }

  const element = h('p', { class: 'running-row' }, icon('running'), link, value);
  return { element, update, setProgress };
}
