// One operation: where it stands, its life event by event, what it was asked, what it measured, what came out.

import { api, call } from './api.js';
import { charts } from './metrics.js';
import { lines } from './chart.js';
import { data } from './data.js';
import { h, icon, show, statusChip, text } from './dom.js';
import { count, duration, moment, now, number, timeOfDay, title } from './format.js';
import { QUIET, atMostEvery, doubt, perFrame } from './live.js';
import { listAddress } from './operations.js';
import { actionsIn, isNewer, isOver, progressBar } from './rows.js';

// Above this a result is offered for download instead of being drawn.
const DRAWN = 8 * 1024 * 1024;
// How often a fetch is repeated that failed, and how often it is asked what no event tells: who could run it, and whether the
// worker that does is there.
const REPEAT = 3000;
const ASK = 5000;

export default function operation({ root, signal, listen, argument: id, title: setTitle }) {
  let current = null;
  const chip = statusChip();
  const bar = progressBar(`Progress of ${id}`);
  const actions = h('div', { class: 'actions' });
  const type = h('span', { class: 'muted' });
  const step = h('span', { class: 'step' });
  const left = h('span', { class: 'muted' });
  const problem = h('div', { class: 'problem', hidden: true });
  const note = h('p', { class: 'note', hidden: true });
  const facts = h('dl', { class: 'pairs facts' });
  const counters = h('dl', { class: 'pairs counters' });
  const attempts = h('ol', { class: 'attempts' });
  const timeline = h('ol', { class: 'timeline' });
  const parameters = h('div');
  const result = h('section', { class: 'card', id: 'result', hidden: true });
  const plots = charts(id, signal, repeat);
  const showActions = actionsIn(actions);

  show(root,
    h('a', { class: 'back', href: listAddress() }, icon('back'), 'Operations'),
    h('div', { class: 'page-head op-head' }, h('div', null, h('h1', { class: 'op-id-title' }, id), type), h('div', { class: 'chips' }, chip.element, actions)),
    problem, note,
    h('section', { class: 'card' }, h('div', { class: 'big-progress' }, bar.element, h('div', { class: 'under' }, step, left)), counters, facts),
    result, plots.element,
    h('div', { class: 'columns' },
      h('section', { class: 'card' }, h('header', null, h('h2', null, 'Attempts')), attempts, h('header', null, h('h2', null, 'Timeline')), timeline),
      h('section', { class: 'card' }, h('header', null, h('h2', null, 'Parameters')), parameters)));

  const draw = perFrame(() => {
    const { status, progress } = current;
    chip.update(status, current.cancel_requested_at && !isOver(status) ? 'cancelling' : status);
    bar.set(progress?.percentage, status);
    text(step, progress?.current_step ?? (status === 'pending' ? waiting(current) : ''));
    const remaining = progress?.estimated_remaining_seconds;
    text(left, status === 'running' && remaining ? `about ${duration(remaining)} left` : '');
    const own = Object.entries(progress ?? {}).filter(([name, value]) => !['percentage', 'current_step', 'estimated_remaining_seconds'].includes(name) && (value === null || typeof value !== 'object'));
    pairsInto(counters, own.map(([name, value]) => [title(name), typeof value === 'number' ? number(value) : String(value ?? '–')]));
    counters.hidden = own.length === 0;
    const running = status === 'running' ? (now() - Date.parse(current.started_at)) / 1000 : current.duration_seconds;
    pairsInto(facts, [
      ['Worker', current.worker_id ?? '–'], ['Attempt', current.attempt || '–'], ['Queue', current.queue],
      ['Created', moment(current.created_at)], ['Started', moment(current.started_at)], ['Ended', moment(current.completed_at)],
      ['Took', duration(running)],
      ...(current.cancel_requested_at ? [['Cancel asked for', moment(current.cancel_requested_at)]] : []),
    ]);
  });

  // What changes rarely: only when the document says so.
  let drawnFor = '';
  // From the backend, about the worker that has it, and what is known of the workers that could.
  let warning = '';
  let hindrance = '';
  function take(document) {
    current = document;
    text(type, title(document.operation_type));
    draw();
    const { status } = document;
    showActions(document);
    drawParameters(document);
    if (status !== 'pending') hindrance = '';
    if (status !== 'running') warning = '';
    drawNotes();
    // Not only when something has changed: it may have failed before.
    if (status === 'completed') showResult(document);
    const key = JSON.stringify([status, document.attempt, document.attempts, document.cancel_requested_at, document.error_message]);
    if (key === drawnFor) return;
    drawnFor = key;
    problem.hidden = !document.error_message;
    if (document.error_message) show(problem, icon('failed'), h('div', null, h('strong', null, title(document.error?.code ?? 'failed')), h('p', null, document.error_message)));
    drawAttempts(document);
    refreshHistory();
  }

  // Once: what somebody has opened in it stays open.
  let askedFor = '';
  function drawParameters({ operation_id: name, created_at: created, metadata, execution }) {
    if (askedFor === name + created) return;
    askedFor = name + created;
    const { worker_id: worker, ...asked } = metadata ?? {};
    show(parameters, data(asked), execution && [h('h3', null, 'Execution'), data(execution)]);
  }

  let notesFor = '';
  function drawNotes() {
    const { forced, retry_of: original, retry_at: again } = current;
    const key = JSON.stringify([forced, original, again, warning, hindrance]);
    if (key === notesFor) return;
    notesFor = key;
    const notes = [
      warning, hindrance,
      forced && 'The worker did not confirm the cancel in time; the backend closed the operation.',
      original && ['Repeats ', h('a', { href: `#/operations/${encodeURIComponent(original)}` }, original), '.'],
      again && `Will be tried again at ${timeOfDay(again)}.`,
    ].filter(Boolean);
    note.hidden = notes.length === 0;
    show(note, notes.map((one) => h('span', null, one, ' ')));
  }

  function drawAttempts({ attempts: list, status: stands }) {
    show(attempts, list.length === 0 && h('li', { class: 'muted' }, isOver(stands) ? 'Nobody took it' : 'Nobody has taken it yet'), list.map((attempt) => {
      const mark = statusChip();
      const status = { completed: 'completed', failed: 'failed', lost: 'failed', cancelled: 'cancelled', released: 'pending' }[attempt.outcome] ?? 'running';
      mark.update(status, attempt.outcome ?? 'running');
      const took = attempt.ended_at ? (Date.parse(attempt.ended_at) - Date.parse(attempt.started_at)) / 1000 : null;
      return h('li', null, h('b', null, `#${attempt.attempt}`), mark.element, h('span', null, 'on ', h('code', null, attempt.worker_id)),
        h('span', { class: 'muted' }, took === null ? `since ${timeOfDay(attempt.started_at)}` : `for ${duration(took)}`),
        attempt.error && h('p', { class: 'attempt-error' }, attempt.error));
    }));
  }

  let entries = 0;
  const refreshHistory = atMostEvery(1000, async () => {
    try {
      const { history, truncated } = await api.history(id, signal);
      const first = Date.parse(history[0]?.time ?? '');
      const words = {
        start_requested: ['pending', 'Start requested'], cancel_requested: ['cancelled', 'Cancel requested'], started: ['running', 'Started'],
        released: ['pending', 'Handed back'], completed: ['completed', 'Completed'], failed: ['failed', 'Failed'], cancelled: ['cancelled', 'Cancelled'],
      };
      show(timeline, history.map((entry) => {
        const [kind, label] = words[entry.event] ?? ['pending', title(entry.event)];
        const why = entry.data?.error?.message ?? entry.data?.reason;
        const after = (Date.parse(entry.time) - first) / 1000;
        return moments(kind, h('div', null, h('b', null, label), entry.attempt > 0 && ` · attempt ${entry.attempt}`, entry.worker_id && [' · ', h('code', null, entry.worker_id)],
          why && h('p', { class: 'muted' }, String(why))),
        h('time', { datetime: entry.time, title: `${moment(entry.time)}; message ${entry.sequence} of the stream` }, after > 0 ? `+${duration(after)}` : timeOfDay(entry.time)));
      }), truncated && moments('pending', h('div', null, 'There is more than is shown here.')));
      entries = history.length;
    } catch (error) {
      if (signal.aborted) return;
      // What is there stays; the events do not change any more.
      if (entries === 0) show(timeline, moments('failed', h('div', { class: 'muted' }, error.message)));
      repeat(error);
    }
  });

  let resultShown = false;
  async function showResult(document) {
    if (resultShown) return;
    resultShown = true;
    result.hidden = false;
    const download = h('a', { class: 'button small', href: `/api/v1/operations/${encodeURIComponent(id)}/results`, download: `${id}.json` }, 'Download');
    const head = h('header', null, h('h2', null, 'Result'), download);
    if ((document.result_ref?.size ?? 0) > DRAWN) {
      show(result, head, h('p', null, `The result has ${count(document.result_ref.size)} bytes.`));
      return;
    }
    try {
      const value = await api.results(id, signal);
      const curve = equity(value);
      show(result, head, curve?.element, data(value));
      curve?.draw();
    } catch (error) {
      if (signal.aborted) return;
      show(result, head, h('p', { class: 'problem' }, error.message));
      // What is gone stays so.
      if (repeat(error)) resultShown = false;
    }
  }

  // What failed is asked for again, also when the line to the backend is fine: right after a start of NATS reads may fail.
  let retry = 0;
  function repeat(error) {
    doubt(error);
    if (error.status > 0 && error.status < 500) return false;
    clearTimeout(retry);
    retry = setTimeout(load, REPEAT);
    return true;
  }

  function receive(document) {
    take(document);
    // Ended: nothing further comes, so the page's one line goes to what tells whether the backend is there.
    if (isOver(document.status)) {
      plots.refresh();
      follow('/api/v1/events');
    }
  }

  let followed = '';
  function follow(url, others = {}) {
    if (url === followed || signal.aborted) return;
    followed = url;
    listen(url, { open: (lost) => { if (lost || !current) load(); }, reset: load, ...others });
  }

  function followThis() {
    follow(`/api/v1/operations/${encodeURIComponent(id)}/events`, {
      // Perhaps it is not there any more.
      refused: load,
      operation: receive,
      progress: (message) => {
        if (!current || message.attempt !== current.attempt || isOver(current.status)) return;
        current = { ...current, progress: message.progress };
        // So its worker is there.
        warning = '';
        drawNotes();
        draw();
      },
      metrics: (message) => plots.take(message),
    });
  }

  // The document, and with `whole` what is fetched beside it.
  let loading = false;
  let more = false;
  async function load(whole = true) {
    if (signal.aborted) return;
    if (loading) {
      more ||= whole;
      return;
    }
    loading = true;
    try {
      const { data: document, warning: said } = await api.operation(id, signal);
      if (!current || !isNewer(current, document)) {
        warning = said ?? '';
        receive(document);
      }
      if (whole) {
        refreshHistory();
        plots.refresh();
      }
      if (!isOver(current.status)) followThis();
      if (current.status === 'pending') askWorkers();
    } catch (error) {
      if (signal.aborted) return;
      if (!current || error.status === 404) {
        problem.hidden = false;
        show(problem, icon('failed'), h('p', null, error.message));
        drawnFor = '';
      }
      if (error.status === 404) follow(QUIET);
      else {
        doubt(error);
        if (!current || !isOver(current.status)) followThis();
      }
    } finally {
      loading = false;
      if (more) {
        more = false;
        load();
      }
    }
  }

  async function askWorkers() {
    const { operation_type: kind, execution, queue } = current;
    // Waits for the one worker that it was started on.
    if (queue === 'direct') return;
    try {
      const workers = await call('GET', `/api/v1/workers?worker_type=${encodeURIComponent(kind)}`, { signal });
      if (current.status !== 'pending') return;
      hindrance = whyNobody(kind, workers, execution?.requirements ?? {});
      drawNotes();
    } catch (error) {
      if (!signal.aborted) doubt(error);
    }
  }

  setTitle(id);
  load();
  const timer = setInterval(() => { if (current?.status === 'running') draw(); }, 1000);
  const asking = setInterval(() => {
    if (document.hidden || !current) return;
    if (current.status === 'pending') askWorkers();
    else if (current.status === 'running') load(false);
  }, ASK);
  return () => {
    clearInterval(timer);
    clearInterval(asking);
    clearTimeout(retry);
    refreshHistory.stop();
    plots.stop();
  };
}

// An entry of the timeline.
const moments = (kind, ...children) => h('li', { 'data-status': kind }, h('span', { class: 'node' }, icon(kind)), children);

// Why none of these workers can take it; nothing when one can, be it busy now.
function whyNobody(kind, workers, { gpu, cores, memory_gb: memory }) {
  if (workers.length === 0) return `No worker of the type ${kind} is here; it waits until there is one.`;
  const heard = workers.filter((worker) => worker.status !== 'TEMPORARILY_UNAVAILABLE');
  if (heard.length === 0) return `No worker of the type ${kind} answers; it waits until one does.`;
  const able = ({ capabilities: own }) => (!gpu || own.gpu) && (!cores || own.cores >= cores) && (!memory || own.memory_gb >= memory);
  if (heard.some(able)) return '';
  const needs = [gpu && 'a GPU', cores && `${count(cores)} ${cores === 1 ? 'core' : 'cores'}`, memory && `${count(memory)} GiB of memory`].filter(Boolean).join(', ');
  return `No worker of the type ${kind} has what it asks for (${needs}); it waits until there is one.`;
}

function waiting({ queue, queue_position: position }) {
  return position ? `Place ${position} in the queue ${queue}` : 'Waiting for a worker';
}

// Names stay, values change in place: no jumps.
function pairsInto(list, pairs) {
  const names = pairs.map(([name]) => name).join('\n');
  if (list.dataset.names !== names) {
    list.dataset.names = names;
    show(list, pairs.map(([name]) => h('div', null, h('dt', null, name), h('dd'))));
  }
  const cells = list.querySelectorAll('dd');
  pairs.forEach(([, value], at) => text(cells[at], value));
}

// A backtest's result carries its equity curve: [[time, equity], …].
function equity(value) {
  const curve = value?.equity_curve;
  if (!Array.isArray(curve) || curve.length < 2) return null;
  const points = curve.map((point, x) => {
    const [time, y] = Array.isArray(point) ? point : [point?.timestamp, point?.equity ?? point?.value];
    return { x, y: Number(y), label: String(time), tick: String(time).slice(0, 10) };
  }).filter((point) => Number.isFinite(point.y));
  const chart = lines('Equity curve');
  return { element: chart.element, draw: () => chart.set([{ name: 'equity', points }]) };
}
