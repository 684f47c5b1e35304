// What an operation is about, its id in short, and its parameters. No elements here.

import { title } from './format.js';

// Ids that backends make: 32 hexadecimal digits that begin with the time.
const GENERATED_ID = /^[0-9a-f]{32}$/;
const SHORT_ID = 8;

/**
 * One line: the summary that the backend made. There is none when no parameter says something.
 * @param {Pick<Api.Operation, 'summary' | 'operation_type'>} operation
 */
export const aboutOperation = ({ summary, operation_type: type }) => summary || title(type);

/**
 * What it was started with. The metadata name the worker, too.
 * @param {Pick<Api.Operation, 'metadata'>} operation
 * @returns {Record<string, unknown>}
 */
export function parametersOf({ metadata }) {
  const { worker_id: _, ...parameters } = metadata ?? {};
  return parameters;
}

/**
 * The end of a generated id, which differs between operations that were started together; any other
 * id as it is.
 * @param {string} id
 */
export function shortId(id) {
  return GENERATED_ID.test(id) ? `…${id.slice(-SHORT_ID)}` : id;
}
