// One operation: how it went first, then plots, what happened, parameters, and the whole result.

import { aboutOperation } from './about.js';
import { scheduleAddress, scheduleLikeAddress, startLikeAddress } from './addresses.js';
import { asApiError } from './api.js';
import { whyNotRetried } from './attempt-timeline.js';
import { copyButton } from './copy.js';
import { h, setAttribute, setText, show } from './dom.js';
import { title } from './format.js';
import { icon } from './icons.js';
import { labelLinks } from './label-links.js';
import { logLines } from './log-lines.js';
import { metricPlots } from './metrics.js';
import { actionsIn } from './operation-actions.js';
import { CheckpointQuestion } from './operation-checkpoint.js';
import { operationTimeline } from './operation-events.js';
import { operationFacts, operationProgress } from './operation-facts.js';
import { OperationFeed } from './operation-feed.js';
import { partsOf } from './not-found.js';
import { operationNotes } from './operation-notes.js';
import { operationParameters, operationResult } from './operation-data.js';
import { lastListAddress } from './operations.js';
import { pressAction } from './row-keys.js';
import { skeletonLines } from './skeleton.js';
import { copyStart } from './start-again.js';
import { statusChip, statusLabel } from './status.js';
import { perFrame } from './throttle.js';
import { toast } from './toast.js';
import { failureText, isDelayed } from './waiting.js';

/** @param {ViewContext} context */
export default function operationView({ root, signal, listen, argument = '', setTitle, keys }) {
  const id = argument;
  const head = operationHead(id, signal);
  const problem = h('div', { class: 'problem', hidden: true });
  const notes = operationNotes();
  const progress = operationProgress(id);
  const facts = operationFacts();
  const parameters = operationParameters();
  const retry = (/** @type {unknown} */ error) => feed.retryAfter(error);
  const timeline = operationTimeline(id, signal, retry);
  const result = operationResult(id, signal, retry);
  const plots = metricPlots(id, signal, retry);
  const logs = logLines(id, signal, retry);
  const loading = skeletonLines(6);
  const columns = h('div', { class: 'columns', hidden: true },
    h('section', { class: 'card' },
      h('header', null, h('h2', null, 'What happened')), timeline.element, facts.element),
    h('section', { class: 'card' },
      h('header', null, h('h2', null, 'Parameters'), head.startLinks), parameters.element));

  const back = h('a', { class: 'back', href: lastListAddress() }, icon('back'), 'Operations');
  const showParts = partsOf(root, [
    back, head.element, problem, notes.element, loading, result.verdict, progress.element,
    plots.element, columns, logs.element, result.element,
  ], [back, problem]);
  keys([
    { key: 'r', what: 'Retry', act: () => pressAction(head.element, 'retry') },
    { key: 'c', what: 'Cancel; press it twice', act: () => pressAction(head.element, 'cancel') },
    { key: 'u', what: 'Back to the list', act: () => { location.hash = lastListAddress(); } },
  ]);

  /** @type {Api.Operation | null} */
  let current = null;
  const draw = perFrame(() => {
    if (!current) return;
    head.update(current);
    progress.update(current);
    facts.update(current);
  });
  const checkpoint = new CheckpointQuestion(id, signal, () => {
    if (current) head.showActions(current, checkpoint.exists);
  });

  // Failure and timeline are drawn again only when one of these changes.
  let drawnKey = '';

  /** @param {Api.Operation} operation */
  function takeOperation(operation) {
    current = operation;
    showParts(true);
    loading.hidden = true;
    columns.hidden = false;
    draw();
    checkpoint.askAbout(operation);
    head.showActions(operation, checkpoint.exists);
    parameters.show(operation);
    notes.update(operation);
    // Also when nothing has changed: an earlier request for the result may have failed.
    if (operation.status === 'completed') result.load(operation);

    const key = JSON.stringify([
      operation.status, operation.attempt, operation.attempts, operation.cancel_requested_at,
      operation.error_message, operation.queue,
    ]);
    if (key === drawnKey) return;
    drawnKey = key;
    showFailure(operation);
    timeline.update(operation);
    logs.update(operation);
  }

  /** @param {Api.Operation} operation */
  function showFailure(operation) {
    const { error } = operation;
    const message = failureText(operation);
    problem.hidden = !message;
    if (!message) return;
    const why = whyNotRetried(operation);
    show(problem, icon('failed'), h('div', null,
      h('strong', null, title(error?.code ?? 'failed')), h('p', null, message),
      why && h('p', { class: 'why' }, why)));
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
    ended: () => {
      plots.refresh();
      logs.refresh();
    },
    reloaded: () => {
      timeline.refresh();
      plots.refresh();
      logs.refresh();
    },
    unavailable: (message) => {
      showParts(current !== null);
      problem.hidden = false;
      show(problem, icon('failed'), h('p', null, message));
      drawnKey = '';
    },
  });

  setTitle(id);
  feed.start();
  // How long it has been running.
  const timer = setInterval(() => {
    if (current && (current.status === 'running' || isDelayed(current))) draw();
  }, 1000);
  return () => {
    clearInterval(timer);
    feed.stop();
    timeline.stop();
    plots.stop();
    logs.stop();
  };
}

/**
 * @param {string} id
 * @param {AbortSignal} signal
 */
function operationHead(id, signal) {
  const about = h('h1', { class: 'op-title' }, id);
  const type = h('span', { class: 'muted' });
  const chip = statusChip();
  const actions = h('div', { class: 'actions' });
  const again = h('a', { class: 'button small' }, 'Run again with changes');
  const curl = h('button', {
    type: 'button', class: 'button small',
    onclick: () => copyStart(id, signal).catch((thrown) =>
      toast(asApiError(thrown).message, 'error')),
  }, 'Copy as curl');
  const labels = labelLinks();
  const schedule = h('a');
  const origin = h('span', { class: 'muted', hidden: true }, 'Started by the schedule ', schedule);
  const startLinks = h('div', { class: 'buttons' }, again,
    h('a', { class: 'button small', href: scheduleLikeAddress(id) }, 'Schedule'), curl);

  return {
    element: h('div', { class: 'page-head op-head' },
      h('div', null, about,
        h('div', { class: 'op-line' }, type,
          h('code', { class: 'op-id-title' }, id),
          copyButton('the id', () => id), origin),
        labels.element),
      h('div', { class: 'chips' }, chip.element, actions)),
    startLinks,
    showActions: actionsIn(actions),
    /** @param {Api.Operation} operation */
    update(operation) {
      setText(about, aboutOperation(operation));
      setText(type, title(operation.operation_type));
      // It is told already.
      type.hidden = !operation.summary;
      labels.update(operation);
      origin.hidden = !operation.schedule_id;
      setText(schedule, operation.schedule_id);
      setAttribute(schedule, 'href', operation.schedule_id && scheduleAddress(operation.schedule_id));
      setAttribute(again, 'href', startLikeAddress(operation.operation_type, id));
      chip.update(operation.status, statusLabel(operation));
    },
  };
}
