// The REST interface. Errors carry what the server said: text, code, violations.

import { heardServerTime } from './format.js';

export class ApiError extends Error {
  constructor(message, status, body) {
    super(message);
    this.status = status;
    this.code = body?.code;
    this.violations = body?.violations ?? [];
  }
}

const PATIENCE = 20000;

// One request: `body` is sent as it stands, and the answer read by `read`. Gives {status, answer}.
export async function exchange(method, path, { body, signal, patience = PATIENCE, read = JSON.parse } = {}) {
  const sentAt = Date.now();
  const limit = AbortSignal.timeout(patience);
  let response;
  let written;
  try {
    response = await fetch(path, {
      method, body, cache: 'no-store', signal: signal ? AbortSignal.any([signal, limit]) : limit,
      headers: body === undefined ? {} : { 'content-type': 'application/json' },
    });
    written = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    const unknown = body !== undefined && limit.aborted;
    throw new ApiError(unknown ? 'The backend did not answer in time. It may have started it all the same: look under Operations first' : 'The backend cannot be reached', 0);
  }
  heardServerTime(response.headers.get('date'), sentAt);
  let answer;
  try {
    answer = written === '' ? null : read(written);
  } catch {
    throw new ApiError(`The backend answered ${response.status} with something that is no JSON`, response.status);
  }
  if (!response.ok) throw new ApiError(answer?.error ?? `The backend answered ${response.status}`, response.status, answer);
  return { status: response.status, answer };
}

export const call = async (method, path, options) => (await exchange(method, path, options)).answer;

const id = encodeURIComponent;
const query = (values) => {
  const set = Object.entries(values).filter(([, value]) => value !== '' && value !== undefined && value !== null);
  return set.length > 0 ? `?${new URLSearchParams(set)}` : '';
};

export const api = {
  stats: (signal) => call('GET', '/api/v1/stats', { signal }),
  workers: (signal) => call('GET', '/api/v1/workers', { signal }),
  types: (signal) => call('GET', '/api/v1/worker-types', { signal }).then((answer) => answer.data.worker_types),
  operations: (filter, signal) => call('GET', `/api/v1/operations${query(filter)}`, { signal }).then((answer) => answer.data),
  operation: (name, signal) => call('GET', `/api/v1/operations/${id(name)}`, { signal }),
  history: (name, signal) => call('GET', `/api/v1/operations/${id(name)}/history`, { signal }).then((answer) => answer.data),
  results: (name, signal) => call('GET', `/api/v1/operations/${id(name)}/results`, { signal }).then((answer) => answer.data),
  metrics: (name, filter, signal) => call('GET', `/api/v1/operations/${id(name)}/metrics${query(filter)}`, { signal }).then((answer) => answer.data),
  cancel: (name) => call('DELETE', `/api/v1/operations/${id(name)}/cancel`),
  retry: (name) => call('POST', `/api/v1/operations/${id(name)}/retry`),
  resume: (name) => call('POST', `/api/v1/operations/${id(name)}/resume`),
};
