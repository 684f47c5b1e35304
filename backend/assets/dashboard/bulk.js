// Cancels and retries of all operations that a filter names: the request, and what its answer means
// for people. No elements here.

import { count } from './format.js';
import { filterQuery } from './list-filter.js';

/** @typedef {import('./list-filter.js').Filter} Filter */
/** @typedef {'cancel' | 'retry'} Verb */

// What starts while somebody reads the question was not counted. The page knows the backend's time to
// about two seconds.
const CLOCK_MS = 2000;

/**
 * The statuses from which something can be done, and those that a question is about when the filter
 * names none. Who cancels does not ask about what is cancelled already.
 * @type {Record<Verb, { able: Api.Status[], asked: Api.Status[] }>}
 */
const STATUSES_OF = {
  cancel: {
    able: ['pending', 'running'], asked: ['pending', 'running', 'completed', 'failed'],
  },
  retry: {
    able: ['failed', 'cancelled'], asked: [],
  },
};

/** @type {Record<Verb, { able: string, done: string, doing: string }>} */
const WORDS = {
  cancel: { able: 'can be cancelled', done: 'Cancelled, or asked to stop', doing: 'Cancel' },
  retry: { able: 'can be retried', done: 'Retried', doing: 'Retry' },
};

/**
 * Why single operations are refused, by error code, for people.
 * @type {Record<string, string>}
 */
const REASONS = {
  already_finished: 'ended already',
  not_repeatable: 'not failed or cancelled, or retried or replaced before',
};

/**
 * Whether it can be done for an operation, as far as its document tells.
 * @param {Verb} verb
 * @param {Api.Operation} operation
 */
export function isAble(verb, { status, cancel_requested_at: cancelRequestedAt, retried_as: retriedAs }) {
  const isDone = verb === 'cancel' ? Boolean(cancelRequestedAt) : Boolean(retriedAs);
  return !isDone && STATUSES_OF[verb].able.includes(status);
}

/**
 * Whether it can be done for any operation that the filter may name.
 * @param {Verb} verb
 * @param {Filter} filter
 */
export function isPossible(verb, { status }) {
  return status === '' || STATUSES_OF[verb].able.some((able) => able === status);
}

/**
 * The filter of the request. It names the same operations in the dry run and afterwards.
 * @param {Verb} verb
 * @param {Filter} filter
 * @param {number} now milliseconds since 1970, by the backend's clock
 * @returns {Record<string, string | string[]>}
 */
export function bulkFilter(verb, filter, now) {
  const { offset: _, ...wanted } = filterQuery(filter, now);
  if (!wanted.created_before) wanted.created_before = new Date(now + CLOCK_MS).toISOString();
  const { asked } = STATUSES_OF[verb];
  const named = Object.entries(wanted).filter(([, value]) => value.length > 0);
  const isOpen = filter.status === '' && asked.length > 0;
  return { ...Object.fromEntries(named), ...(isOpen ? { status: asked } : {}) };
}

/**
 * The filter of the request that does it: only those that it can be done for. What a retry starts
 * matches, too, but cannot be retried at once, and is not refused.
 * @param {Verb} verb
 * @param {Record<string, string | string[]>} asked the filter of the dry run
 * @param {Filter} filter
 */
export function filterOfThose(verb, asked, filter) {
  return filter.status === '' ? { ...asked, status: STATUSES_OF[verb].able } : asked;
}

/** @param {number} number */
const operations = (number) => `${count(number)} ${number === 1 ? 'operation' : 'operations'}`;

/**
 * Those that are refused, by reason: "5 cannot: ended already".
 * @param {Api.OneByFilter[]} results
 */
function refusedText(results) {
  const refused = results.filter(({ code }) => code !== undefined);
  if (refused.length === 0) return '';
  /** @type {Map<string, number>} */
  const byReason = new Map();
  for (const { code } of refused) {
    const reason = REASONS[code ?? ''] ?? String(code);
    byReason.set(reason, (byReason.get(reason) ?? 0) + 1);
  }
  const reasons = [...byReason].map(([reason, number]) =>
    (byReason.size > 1 ? `${count(number)} ${reason}` : reason));
  return `${count(refused.length)} cannot: ${reasons.join(', ')}.`;
}

/**
 * Running ones that ignore an earlier cancel, so far: "5 were asked to stop before and still run."
 * @param {Api.OneByFilter[]} results
 */
function askedBeforeText(results) {
  const asked = results.filter(({ asked_before: isAsked }) => isAsked).length;
  if (asked === 0) return '';
  return asked === 1 ? '1 was asked to stop before and still runs.'
    : `${count(asked)} were asked to stop before and still run.`;
}

/**
 * What a dry run found.
 * @param {Verb} verb
 * @param {Api.DoneByFilter} found
 * @returns {{ text: string, able: number, button: string, refused: Api.OneByFilter[] }} `able`: for
 *   how many it would be done
 */
export function questionOf(verb, { matched, has_more: hasMore, results, warning }) {
  const able = results.filter(({ code, asked_before: isAsked }) => code === undefined && !isAsked).length;
  const match = matched === 1 ? 'matches' : 'match';
  const sentences = [
    `${operations(matched)} ${match}.`,
    hasMore && `This request is about ${count(results.length)} of them.`,
    able === 0 ? `None ${WORDS[verb].able}.` : `${count(able)} ${WORDS[verb].able}.`,
    askedBeforeText(results),
    refusedText(results),
    warning,
  ];
  return {
    text: sentences.filter(Boolean).join(' '),
    able,
    refused: results.filter(({ code }) => code !== undefined),
    button: `${WORDS[verb].doing} ${operations(able)}`,
  };
}

/**
 * What was done.
 * @param {Verb} verb
 * @param {Api.DoneByFilter} outcome
 */
export function outcomeOf(verb, { done, has_more: hasMore, results, warning }) {
  const refused = results.filter(({ code }) => code !== undefined);
  const sentences = [
    `${WORDS[verb].done}: ${operations(done)}.`,
    askedBeforeText(results),
    refused.length > 0 && `Refused: ${count(refused.length)}.`,
    hasMore && 'More operations match.',
    warning,
  ];
  return { text: sentences.filter(Boolean).join(' '), refused };
}

/**
 * Why one operation was refused.
 * @param {Api.OneByFilter} result
 */
export const reasonOf = ({ code, status_code: status }) =>
  REASONS[code ?? ''] ?? (code || `HTTP ${status}`);
