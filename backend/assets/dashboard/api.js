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

export async function call(method, path, { body, signal, patience = 20000 } = {}) {
  const sentAt = Date.now();
  const limit = AbortSignal.timeout(patience);
  const signals = signal ? AbortSignal.any([signal, limit]) : limit;
  let response;
  try {
    response = await fetch(path, {
      method, signal: signals, cache: 'no-store',
      headers: body === undefined ? {} : { 'content-type': 'application/json' },
      body: body === undefined ? undefined : JSON.stringify(body),
    });
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError('The backend cannot be reached', 0);
  }
  heardServerTime(response.headers.get('date'), sentAt);
  const text = await response.text();
  let json;
  try {
    json = text === '' ? null : JSON.parse(text);
  } catch {
    throw new ApiError(`The backend answered ${response.status} with something that is no JSON`, response.status);
  }
  if (!response.ok) throw new ApiError(json?.error ?? `The backend answered ${response.status}`, response.status, json);
  return json;
}

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
  start: (domain, body) => call('POST', `/api/v1/${id(domain)}/start`, { body }),
};
