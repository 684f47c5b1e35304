// Who works: status, capabilities, what each runs, when it was last heard.

import { api } from './api.js';
import { attr, h, icon, keyed, show, statusChip, text } from './dom.js';
import { ageing, count, now, percent, title } from './format.js';
import { atMostEvery, doubt } from './live.js';

// A free worker asks for work all the time; one that beats but has not asked for this long hears nothing.
const DEAF_AFTER = 90;

const WORDS = { AVAILABLE: 'available', BUSY: 'busy', TEMPORARILY_UNAVAILABLE: 'silent' };

export default function workers({ root, signal, listen }) {
  const body = h('div', { class: 'worker-grid' });
  const cards = keyed(body, (worker) => worker.worker_id, workerCard);
  const empty = h('section', { class: 'card empty', hidden: true },
    h('p', null, 'No worker is here. Start one with:'), h('pre', null, 'WORKER_TYPE=dummy ktrdr-worker'));
  const summary = h('span', { class: 'muted' }, ' ');
  const error = h('p', { class: 'problem', hidden: true });
  show(root, h('div', { class: 'page-head' }, h('h1', null, 'Workers'), summary), error, body, empty);

  const refresh = atMostEvery(1000, async () => {
    try {
      const list = await api.workers(signal);
      error.hidden = true;
      // Whatever needs a look stands first.
      const rank = (worker) => (worker.status === 'TEMPORARILY_UNAVAILABLE' ? 0 : isDeaf(worker) ? 1 : 2);
      list.sort((a, b) => rank(a) - rank(b) || a.worker_type.localeCompare(b.worker_type) || a.worker_id.localeCompare(b.worker_id, undefined, { numeric: true }));
      cards.set(list);
      empty.hidden = list.length > 0;
      const of = (status) => list.filter((worker) => worker.status === status).length;
      text(summary, list.length === 0 ? '' : `${count(list.length)} in all: ${of('BUSY')} busy, ${of('AVAILABLE')} available, ${of('TEMPORARILY_UNAVAILABLE')} silent`);
    } catch (problem) {
      if (signal.aborted) return;
      doubt(problem);
      error.hidden = false;
      text(error, problem.message);
    }
  });

  listen('/api/v1/events', {
    open: () => refresh(true), reset: () => refresh(true), worker: () => refresh(),
    operation: () => refresh(),
    progress: (message) => cards.get(message.worker_id)?.progress(message),
  });
  refresh(true);
  const timer = setInterval(() => refresh(), 5000);
  return () => { clearInterval(timer); refresh.stop(); };
}

function isDeaf(worker) {
  if (worker.status !== 'AVAILABLE') return false;
  const asked = Date.parse(worker.last_pull_at ?? worker.registered_at);
  return Number.isFinite(asked) && (now() - asked) / 1000 > DEAF_AFTER;
}

function workerCard() {
  const chip = statusChip();
  const deaf = h('span', { class: 'chip', 'data-status': 'deaf', hidden: true, title: 'It beats, but has not asked for work for a while' }, icon('deaf'), 'deaf');
  const name = h('h2', { class: 'worker-name' });
  const type = h('span', { class: 'muted' });
  const tags = h('div', { class: 'tags' });
  const running = h('div', { class: 'running-list' });
  const heard = h('span');
  const asked = h('span');
  const since = h('span');
  const finished = h('span');
  const version = h('span');
  const address = h('span', { class: 'breakable' });
  const pair = (label, element) => [h('dt', null, label), h('dd', null, element)];
  const ops = keyed(running, (operation) => `${operation.operation_id} ${operation.attempt}`, runningRow);
  const idle = h('p', { class: 'muted idle' }, 'Runs nothing');
  let shownTags = '';
  const element = h('article', { class: 'card worker-card' },
    h('header', null, h('div', { class: 'worker-title' }, name, type), h('div', { class: 'chips' }, deaf, chip.element)),
    tags, h('div', { class: 'running-box' }, running, idle),
    h('dl', { class: 'pairs' }, pair('Last heartbeat', heard), pair('Last asked for work', asked), pair('Up since', since),
      pair('Finished', finished), pair('Version', version), pair('Address', address)));
  return {
    element,
    update(worker) {
      attr(element, 'data-id', worker.worker_id);
      attr(element, 'data-status', worker.status);
      text(name, worker.worker_id);
      text(type, title(worker.worker_type));
      chip.update(worker.status, WORDS[worker.status] ?? worker.status);
      deaf.hidden = !isDeaf(worker);
      const wanted = JSON.stringify([worker.capabilities, worker.slots]);
      if (wanted !== shownTags) {
        shownTags = wanted;
        show(tags, capabilities(worker).map((label) => h('span', { class: 'tag' }, label)));
      }
      ops.set(worker.current_operations ?? []);
      idle.hidden = (worker.current_operations ?? []).length > 0;
      ageing(heard, worker.last_health_check);
      ageing(asked, worker.last_pull_at);
      ageing(since, worker.registered_at);
      const fenced = worker.fenced > 0 ? `, ${count(worker.fenced)} fenced` : '';
      const missed = worker.health_check_failures > 0 ? `, ${count(worker.health_check_failures)} heartbeats missed` : '';
      text(finished, `${count(worker.finished)}${fenced}${missed}`);
      text(version, worker.version);
      text(address, worker.endpoint_url);
    },
    progress(message) {
      ops.get(`${message.operation_id} ${message.attempt}`)?.progress(message.progress);
    },
  };
}

function capabilities({ capabilities: own, slots }) {
  const { gpu, cores, memory_gb, ...other } = own;
  const list = [gpu ? 'GPU' : 'CPU only'];
  if (cores) list.push(`${cores} cores`);
  if (memory_gb) list.push(`${memory_gb} GiB`);
  if (slots > 1) list.push(`${slots} slots`);
  for (const [name, value] of Object.entries(other)) list.push(`${name}: ${typeof value === 'object' ? JSON.stringify(value) : value}`);
  return list;
}

function runningRow() {
  const link = h('a', { class: 'op-id' });
  const value = h('span', { class: 'muted' });
  let attempt = 1;
  const row = {
    element: h('p', { class: 'running-row' }, icon('running'), link, value),
    update(operation) {
      attr(link, 'href', `#/operations/${encodeURIComponent(operation.operation_id)}`);
      text(link, operation.operation_id);
      attempt = operation.attempt;
      row.progress(operation.progress);
    },
    progress(progress) {
      text(value, `${percent(progress?.percentage)}${attempt > 1 ? `, attempt ${attempt}` : ''}`);
    },
  };
  return row;
}
