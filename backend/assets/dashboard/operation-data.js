// What an operation was started with, and its result.

import { api, asApiError, operationPath } from './api.js';
import { h, show } from './dom.js';
import { downloadWithToken } from './download.js';
import { equityPoints } from './equity-curve.js';
import { count } from './format.js';
import { jsonView } from './json-view.js';
import { lineChart } from './line-chart.js';

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
    show({ operation_id: id, created_at: createdAt, metadata, execution }) {
      if (shownKey === id + createdAt) return;
      shownKey = id + createdAt;
      const { worker_id: _, ...parameters } = metadata ?? {};
      show(element,
        jsonView(parameters),
        execution && [h('h3', null, 'Execution options'), jsonView(execution)]);
    },
  };
}

/**
 * @param {string} id
 * @param {AbortSignal} signal
 * @param {(error: unknown) => boolean} onFailure whether it may succeed later
 */
export function operationResult(id, signal, onFailure) {
  const element = h('section', { class: 'card', id: 'result', hidden: true });
  let isRequested = false;

  /** @param {Api.Operation} operation */
  async function load({ result_ref: reference }) {
    if (isRequested) return;
    isRequested = true;
    element.hidden = false;

    const size = reference?.size ?? 0;
    const head = resultHead(id, size);
    if (size > MAX_SHOWN_RESULT) {
      show(element, head, h('p', null, `The result has ${count(size)} bytes.`));
      return;
    }

    try {
      const result = await api.result(id, signal);
      drawResult(head, result);
    } catch (thrown) {
      if (signal.aborted) return;
      show(element, head, h('p', { class: 'problem' }, asApiError(thrown).message));
      if (onFailure(thrown)) isRequested = false;
    }
  }

  /**
   * @param {Child} head
   * @param {unknown} result
   */
  function drawResult(head, result) {
    const points = equityPoints(result);
    const chart = points && lineChart('Equity curve');
    show(element, head, resultWarnings(result), chart?.element, jsonView(result));
    // Only now has the chart a width.
    if (points) chart?.set([{ name: 'equity', points }]);
  }

  return { element, load };
}

/**
 * What a person should know about a completed operation. Any engine may have a list `warnings`.
 * @param {any} result
 */
function resultWarnings(result) {
  const warnings = result?.warnings;
  if (!Array.isArray(warnings) || warnings.length === 0) return null;

  return h('ul', { class: 'note warnings', 'aria-label': 'Warnings' },
    warnings.slice(0, MAX_SHOWN_WARNINGS).map((warning) => h('li', null,
      typeof warning === 'string' ? warning : JSON.stringify(warning))));
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
