// The execution options of an operation or a schedule.

import { h } from './dom.js';
import { jsonView } from './json-view.js';

/** @type {Schema} */
const EXECUTION = { properties: { labels: { additionalProperties: { type: 'string' } } } };

/**
 * @param {unknown} execution nothing is shown without it
 * @returns {Child}
 */
export const howItRuns = (execution) =>
  execution !== undefined && execution !== null
    && [h('h3', null, 'How it runs'), jsonView(execution, EXECUTION)];
