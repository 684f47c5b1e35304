// The filter of the list of operations: from an address, and as a query. No elements here.

import { STATUSES } from './status.js';

/**
 * Time ranges that end now, by their name in addresses, in seconds.
 * @type {[string, number, string][]} name, seconds, label
 */
export const RANGES = [
  ['15m', 900, 'Last 15 minutes'],
  ['1h', 3600, 'Last hour'],
  ['24h', 86400, 'Last 24 hours'],
  ['7d', 604800, 'Last 7 days'],
];

/**
 * Empty texts and an empty list stand for "any".
 * @typedef {object} Filter
 * @property {string} search
 * @property {string} operation_type
 * @property {string} status
 * @property {string} worker_id
 * @property {string} schedule_id
 * @property {string} error_code
 * @property {string[]} label each as `name:value`; all of them must hold
 * @property {string} since one of `RANGES`
 * @property {string} created_after a time, when there is no `since`
 * @property {string} created_before
 * @property {string} ended_after a time
 * @property {number} offset
 */

const TEXTS = ['search', 'operation_type', 'worker_id', 'schedule_id', 'error_code'];

/** @param {string} text */
const asTime = (text) => (Number.isFinite(Date.parse(text)) ? text : '');

/**
 * The filter that an address names. What it cannot mean is left out.
 * @param {URLSearchParams} query
 * @returns {Filter}
 */
export function filterFrom(query) {
  const get = (/** @type {string} */ name) => query.get(name) ?? '';
  const [search, operationType, workerId, scheduleId, errorCode] = TEXTS.map(get);
  const status = get('status');
  const since = RANGES.some(([name]) => name === get('since')) ? get('since') : '';
  const offset = Number.parseInt(get('offset'), 10) || 0;
  return {
    search,
    operation_type: operationType,
    status: STATUSES.some((known) => known === status) ? status : '',
    worker_id: workerId,
    schedule_id: scheduleId,
    error_code: errorCode,
    label: query.getAll('label').filter(Boolean),
    since,
    created_after: since ? '' : asTime(get('created_after')),
    created_before: since ? '' : asTime(get('created_before')),
    ended_after: asTime(get('ended_after')),
    offset: Math.max(0, offset),
  };
}

/**
 * The parameters of the request.
 * @param {Filter} filter
 * @param {number} now milliseconds since 1970, by the backend's clock
 */
export function filterQuery({ since, ...parameters }, now) {
  const range = RANGES.find(([name]) => name === since);
  if (!range) return parameters;
  return { ...parameters, created_after: new Date(now - range[1] * 1000).toISOString() };
}

/**
 * Whether anything is left out because of the filter.
 * @param {Filter} filter
 */
export function isFiltered({ offset: _, ...others }) {
  return Object.values(others).some((value) => value.length > 0);
}
