// The request of an operation that exists, to send again: in the form, or by curl.

import { parametersOf } from './about.js';
import { call, operationPath } from './api.js';
import { copy } from './copy.js';
import { curlCommand } from './curl.js';
import { readJson, writeJson } from './exact.js';
import { tabToken } from './token.js';
import { workerTypeOf } from './worker-types.js';

/**
 * Parameters and execution options, with all digits. Without moments that were about that operation:
 * another one would expire at once.
 * @param {string} id
 * @param {AbortSignal} signal
 * @returns {Promise<{ type: string, parameters: Record<string, unknown>, execution?: unknown }>}
 */
export async function requestOf(id, signal) {
  const { data } = await call('GET', operationPath(id), { signal, read: readJson });
  const { operation_type: type } = data;
  const { start_at: _, expires_at: __, ...execution } = data.execution ?? {};
  return {
    type, parameters: parametersOf(data), execution: data.execution ? execution : undefined,
  };
}

/**
 * @param {string} domain
 * @param {string} body
 */
export function startCommand(domain, body) {
  const url = `${location.origin}/api/v1/${encodeURIComponent(domain)}/start`;
  return curlCommand('POST', url, {
    headers: { 'Content-Type': 'application/json' }, body, withToken: tabToken.isUsed,
  });
}

/**
 * Copies the start of an operation like this one.
 * @param {string} id
 * @param {AbortSignal} signal
 */
export async function copyStart(id, signal) {
  const { type, parameters, execution } = await requestOf(id, signal);
  const known = await workerTypeOf(type, signal);
  if (!known) throw new Error(`The worker type ${type} is no longer known`);
  const body = execution === undefined ? parameters : { ...parameters, execution };
  await copy('the curl command', startCommand(known.domain, writeJson(body)));
}
