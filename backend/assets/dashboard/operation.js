// One operation: state and progress, attempts, every event, parameters, metrics, result.

import { h, setText, show } from './dom.js';
import { title } from './format.js';
import { icon } from './icons.js';
import { metricPlots } from './metrics.js';
import { actionsIn } from './operation-actions.js';
import { attemptList, operationTimeline } from './operation-events.js';
import { operationFacts } from './operation-facts.js';
import { OperationFeed } from './operation-feed.js';
import { operationNotes } from './operation-notes.js';
import { operationParameters, operationResult } from './operation-data.js';
import { lastListAddress } from './operations.js';
import { statusChip, statusLabel } from './status.js';
import { perFrame } from './throttle.js';

/** @param {ViewContext} context */
export default function operationView({ root, signal, listen, argument = '', setTitle }) {
  const id = argument;
  const head = operationHead(id);
  const problem = h('div', { class: 'problem', hidden: true });
  const notes = operationNotes();
  const facts = operationFacts(id);
  const parameters = operationParameters();
  const attempts = attemptList();
  const retry = (/** @type {unknown} */ error) => feed.retryAfter(error);
  const timeline = operationTimeline(id, signal, retry);
  const result = operationResult(id, signal, retry);
  const plots = metricPlots(id, signal, retry);

  show(root,
    h('a', { class: 'back', href: lastListAddress() }, icon('back'), 'Operations'),
    head.element, problem, notes.element, facts.element, result.element, plots.element,
    h('div', { class: 'columns' },
      h('section', { class: 'card' },
        h('header', null, h('h2', null, 'Attempts')), attempts.element,
        h('header', null, h('h2', null, 'Timeline')), timeline.element),
      h('section', { class: 'card' },
        h('header', null, h('h2', null, 'Parameters')), parameters.element)));

  /** @type {Api.Operation | null} */
  let current = null;
  const draw = perFrame(() => {
    if (!current) return;
    head.update(current);
    facts.update(current);
  });

  // Failure, attempts and timeline are drawn again only when one of these changes.
  let drawnKey = '';

  /** @param {Api.Operation} operation */
  function takeOperation(operation) {
    current = operation;
    draw();
    head.showActions(operation);
    parameters.show(operation);
    notes.update(operation);
    // Also when nothing has changed: an earlier request for the result may have failed.
    if (operation.status === 'completed') result.load(operation);

    const key = JSON.stringify([
      operation.status, operation.attempt, operation.attempts, operation.cancel_requested_at,
      operation.error_message,
    ]);
    if (key === drawnKey) return;
    drawnKey = key;
    showFailure(operation);
    attempts.update(operation);
    timeline.refresh();
  }

  /** @param {Api.Operation} operation */
  function showFailure({ error, error_message: message }) {
    problem.hidden = !message;
    if (!message) return;
    show(problem, icon('failed'),
      h('div', null, h('strong', null, title(error?.code ?? 'failed')), h('p', null, message)));
  }

  const feed = new OperationFeed(id, signal, listen, {
    operation: takeOperation,
    progress: (operation) => {
      current = operation;
      // The worker reports, so it is there.
      notes.setWarning('');
      draw();
    },
    metrics: (event) => plots.take(event),
    warning: notes.setWarning,
    blocked: notes.setBlocked,
    ended: () => plots.refresh(),
    reloaded: () => {
      timeline.refresh();
      plots.refresh();
    },
    unavailable: (message) => {
      problem.hidden = false;
      show(problem, icon('failed'), h('p', null, message));
      drawnKey = '';
    },
  });

  setTitle(id);
  feed.start();
  // How long it has been running.
  const timer = setInterval(() => {
    if (current?.status === 'running') draw();
  }, 1000);
  return () => {
    clearInterval(timer);
    feed.stop();
    timeline.stop();
    plots.stop();
  };
}

/** @param {string} id */
function operationHead(id) {
  const type = h('span', { class: 'muted' });
  const chip = statusChip();
  const actions = h('div', { class: 'actions' });
  return {
    element: h('div', { class: 'page-head op-head' },
      h('div', null, h('h1', { class: 'op-id-title' }, id), type),
      h('div', { class: 'chips' }, chip.element, actions)),
    showActions: actionsIn(actions),
    /** @param {Api.Operation} operation */
    update(operation) {
      setText(type, title(operation.operation_type));
      chip.update(operation.status, statusLabel(operation));
    },
  };
}
