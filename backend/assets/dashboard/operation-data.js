// What an operation was started with, and its result: the figures that say how it went first, then
// plots, and everything at the end of the page.

import { parametersOf } from './about.js';
import { api, asApiError, operationPath } from './api.js';
import { h, show } from './dom.js';
import { downloadWithToken } from './download.js';
import { equityPoints } from './equity-curve.js';
import { verdictOf } from './figures.js';
import { count } from './format.js';
import { howItRuns } from './how-it-runs.js';
import { jsonView } from './json-view.js';
import { lineChart } from './line-chart.js';
import { skeletonLines } from './skeleton.js';
import { workerTypeOf } from './worker-types.js';

// A larger result is offered as a download only, in bytes.
const MAX_SHOWN_RESULT = 8 * 1024 * 1024;

const MAX_SHOWN_WARNINGS = 50;

export function operationParameters() {
  const element = h('div');
  let shownKey = '';
  return {
    element,
    /**
     * Draws once: what somebody has opened in it stays open.
     * @param {Api.Operation} operation
     */
    show(operation) {
      const { operation_id: id, created_at: createdAt, execution } = operation;
      if (shownKey === id + createdAt) return;
      shownKey = id + createdAt;
      show(element, jsonView(parametersOf(operation)), howItRuns(execution));
    },
  };
}

/**
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {(error: unknown) => boolean} onFailure whether it may succeed later
 */
export function operationResult(id, signal, onFailure) {
  const verdict = h('section', { class: 'card', id: 'verdict', hidden: true });
  const element = h('section', { class: 'card', id: 'result', hidden: true });
  let isRequested = false;

  /** @param {Api.Operation} operation */
  async function load({ result_ref: reference, operation_type: type }) {
    if (isRequested) return;
    isRequested = true;
    element.hidden = false;

    const size = reference?.size ?? 0;
    const head = resultHead(id, size);
    if (size > MAX_SHOWN_RESULT) {
      show(element, head, h('p', null, `The result has ${count(size)} bytes.`));
      return;
    }

    show(element, head, skeletonLines());
    try {
      const [result, schema] = await Promise.all([api.result(id, signal), resultSchema(type)]);
      drawVerdict(result, schema);
      show(element, head, jsonView(result, schema));
    } catch (thrown) {
      if (signal.aborted) return;
      show(element, head, h('p', { class: 'problem' }, asApiError(thrown).message));
      if (onFailure(thrown)) isRequested = false;
    }
  }

  /**
   * The schema only adds units: a result is shown without it, too.
   * @param {string} type
   */
  async function resultSchema(type) {
    try {
      return (await workerTypeOf(type, signal))?.result_schema;
    } catch {
      return undefined;
    }
  }

  /**
   * @param {unknown} result
   * @param {Schema | undefined} schema
   */
  function drawVerdict(result, schema) {
    const figures = verdictOf(result, schema);
    const points = equityPoints(result);
    const warnings = resultWarnings(result);
    verdict.hidden = figures.length === 0 && !points && !warnings;

    const chart = points && lineChart('Equity curve');
    show(verdict,
      warnings,
      figures.length > 0 && h('dl', { class: 'figures' }, figures.map((figure) => h('div', null,
        h('dt', null, figure.label), h('dd', { title: figure.exact, 'data-text': figure.isText ? 'yes' : null },
          figure.text)))),
      chart?.element);
    // Only now has the chart a width.
    if (points) chart?.set([{ name: 'equity', points }]);
  }

  return { verdict, element, load };
}

/**
 * What a person should know about a completed operation. Any engine may have a list `warnings`.
 * @param {any} result
 */
function resultWarnings(result) {
  const warnings = result?.warnings;
  if (!Array.isArray(warnings) || warnings.length === 0) return null;

  const shown = warnings.slice(0, MAX_SHOWN_WARNINGS).map((warning) => h('li', null,
    typeof warning === 'string' ? warning : JSON.stringify(warning)));
  const left = warnings.length - shown.length;
  return h('ul', { class: 'note warnings', 'aria-label': 'Warnings' },
    shown, left > 0 && h('li', null, `and ${count(left)} more, in the result below`));
}

/**
 * @param {string} id
 * @param {number} size in bytes, 0 when it is not known
 */
function resultHead(id, size) {
  const name = `${id}.json`;
  const link = h('a', {
    class: 'button small', href: `${operationPath(id)}/results`, download: name,
  }, 'Download');
  const note = downloadWithToken(link, name, size);
  return [h('header', null, h('h2', null, 'Result'), link), note];
}
