// The REST interface.

import { recordServerTime } from './server-clock.js';
import { fetchWith, fetchWithToken } from './token-fetch.js';

/** A request that failed. It carries what the backend answered: text, code, violations. */
export class ApiError extends Error {
  /**
   * @param {string} message
   * @param {number} status 0 when no answer came
   * @param {Api.Problem | null} [body]
   */
  constructor(message, status, body) {
    super(message);
    this.status = status;
    this.code = body?.code;
    // The one that the token lacks.
    this.scope = body?.scope;
    this.violations = body?.violations ?? [];
  }

  /**
   * Whether the cause may be the connection, the backend or NATS, so that the same request may
   * succeed later.
   */
  get isTemporary() {
    return this.status === 0 || this.status >= 500;
  }
}

/**
 * What was thrown, as an error of a request.
 * @param {unknown} thrown
 */
export function asApiError(thrown) {
  if (thrown instanceof ApiError) return thrown;
  // Not an answer of the backend, and not a reason to repeat the request.
  return new ApiError(thrown instanceof Error ? thrown.message : String(thrown), -1);
}

const TIMEOUT_MS = 20000;
// Of requests about many operations: a backend works on them for up to 20 seconds.
const MANY_TIMEOUT_MS = 60000;

const UNREACHABLE = 'The backend cannot be reached';

// TypeScript 4.8 does not know these functions yet.
/** @type {any} */
const signals = AbortSignal;

/**
 * @typedef {object} RequestOptions
 * @property {string} [body] sent as it is
 * @property {string} [idempotencyKey] the request may be sent again with it
 * @property {AbortSignal} [signal]
 * @property {number} [timeoutMs]
 * @property {boolean} [isOpen] a route that everybody may ask: it gets no token
 * @property {(text: string) => any} [read] parses the answer
 */

/**
 * Sends one request.
 * @param {string} method
 * @param {string} path
 * @param {RequestOptions} options
 * @returns {Promise<{ status: number, answer: any, next: string | null }>} `next`: the path of the
 *   next page
 * @throws {ApiError} when no answer came, or one that is an error
 */
export async function exchange(method, path, options = {}) {
  const {
    body, idempotencyKey, signal, timeoutMs = TIMEOUT_MS, isOpen = false, read = JSON.parse,
  } = options;
  let sentAt = 0;
  let timeout = signals.timeout(timeoutMs);
  const makeInit = () => {
    sentAt = Date.now();
    timeout = signals.timeout(timeoutMs);
    /** @type {Record<string, string>} */
    const headers = body === undefined ? {} : { 'content-type': 'application/json' };
    if (idempotencyKey !== undefined) headers['idempotency-key'] = idempotencyKey;
    return { method, body, headers, signal: anySignal(signal, timeout) };
  };
  let response;
  let text;
  try {
    response = isOpen
      ? await fetchWith(null, path, makeInit())
      : await fetchWithToken(method, path, makeInit, signal);
    text = await response.text();
  } catch (error) {
    if (signal?.aborted) throw error;
    throw new ApiError(noAnswer(method, timeout.aborted, idempotencyKey !== undefined), 0);
  }
  recordServerTime(response.headers.get('date'), sentAt);

  let answer;
  try {
    answer = text === '' ? null : read(text);
  } catch {
    const message = `The backend answered ${response.status} with a body that is not JSON`;
    throw new ApiError(message, response.status);
  }
  if (!response.ok) {
    const why = answer?.error ?? `The backend answered ${response.status}`;
    // A user who gives another token next should not wonder.
    const isRefused = response.status === 401 && method !== 'GET';
    const message = isRefused ? `${why}. Nothing was changed` : why;
    throw new ApiError(message, response.status, answer);
  }
  const next = response.headers.get('link')?.match(/^<([^>]+)>; rel="next"$/)?.[1] ?? null;
  return { status: response.status, answer, next };
}

/**
 * What to say when no answer came. A request that changes something may have done so.
 * @param {string} method
 * @param {boolean} isLate
 * @param {boolean} isRepeatable
 */
function noAnswer(method, isLate, isRepeatable) {
  if (method === 'GET') return isLate ? 'The backend did not answer in time' : UNREACHABLE;
  if (isRepeatable) {
    const what = isLate ? 'The backend did not answer in time' : UNREACHABLE;
    return `${what}. Try again: it starts once, even if this request has arrived`;
  }
  return isLate ? 'The backend did not answer in time. Look whether it was done' : UNREACHABLE;
}

/**
 * @param {AbortSignal | undefined} signal
 * @param {AbortSignal} timeout
 * @returns {AbortSignal}
 */
function anySignal(signal, timeout) {
  return signal ? signals.any([signal, timeout]) : timeout;
}

/**
 * Sends one request and returns the answer's document.
 * @param {string} method
 * @param {string} path
 * @param {RequestOptions} [options]
 */
export async function call(method, path, options) {
  return (await exchange(method, path, options)).answer;
}

/** @param {string} id */
export const operationPath = (id) => `/api/v1/operations/${encodeURIComponent(id)}`;

/** @param {string} id */
export const schedulePath = (id) => `/api/v1/schedules/${encodeURIComponent(id)}`;

/** @param {Record<string, string | number | string[] | null | undefined>} values */
export function queryString(values) {
  const query = new URLSearchParams();
  for (const [name, value] of Object.entries(values)) {
    if (value === '' || value === undefined || value === null) continue;
    for (const one of Array.isArray(value) ? value : [value]) query.append(name, String(one));
  }
  const written = query.toString();
  return written === '' ? '' : `?${written}`;
}

/**
 * @param {string} path
 * @param {AbortSignal} [signal]
 */
const get = (path, signal) => call('GET', path, { signal });

/**
 * @param {string} path
 * @param {AbortSignal} [signal]
 */
const getData = async (path, signal) => (await get(path, signal)).data;

/**
 * The elements of all pages of a list.
 * @param {string} path
 * @param {AbortSignal} signal
 */
async function allPages(path, signal) {
  /** @type {any[]} */
  let all = [];
  for (let next = /** @type {string | null} */ (path); next !== null;) {
    const page = await exchange('GET', next, { signal });
    all = all.concat(page.answer);
    next = page.next;
  }
  return all;
}

export const api = {
  /** @type {(signal: AbortSignal) => Promise<Api.Stats>} */
  stats: (signal) => getData('/api/v1/stats', signal),

  /** @type {(signal: AbortSignal, workerType?: string) => Promise<Api.Worker[]>} */
  workers: (signal, workerType) =>
    allPages(`/api/v1/workers${queryString({ worker_type: workerType })}`, signal),

  /** @type {(id: string, signal: AbortSignal) => Promise<Api.Worker>} */
  worker: (id, signal) => get(`/api/v1/workers/${encodeURIComponent(id)}`, signal),

  /** @type {(signal: AbortSignal) => Promise<Api.QueueOverview[]>} */
  queues: async (signal) => (await getData('/api/v1/queues', signal)).queues,

  /** @type {(workerType: string, until: string | null) => Promise<void>} */
  pause: (workerType, until) =>
    call('POST', `/api/v1/queues/${encodeURIComponent(workerType)}/pause`,
      { body: JSON.stringify({ until }) }),

  /** @type {(workerType: string) => Promise<void>} */
  unpause: (workerType) =>
    call('POST', `/api/v1/queues/${encodeURIComponent(workerType)}/resume`),

  /** @type {(workerId: string) => Promise<void>} */
  drain: (workerId) => call('POST', `/api/v1/workers/${encodeURIComponent(workerId)}/drain`),

  /** @type {(workerId: string) => Promise<void>} */
  undrain: (workerId) => call('POST', `/api/v1/workers/${encodeURIComponent(workerId)}/undrain`),

  /** @type {(workerType: string) => Promise<void>} */
  forgetType: (workerType) =>
    call('DELETE', `/api/v1/worker-types/${encodeURIComponent(workerType)}`),

  /** @type {(signal: AbortSignal) => Promise<Api.WorkerType[]>} */
  workerTypes: async (signal) => (await getData('/api/v1/worker-types', signal)).worker_types,

  /** @type {(filter: Record<string, any>, signal: AbortSignal) => Promise<Api.OperationPage>} */
  operations: (filter, signal) => getData(`/api/v1/operations${queryString(filter)}`, signal),

  /** @type {(id: string, signal: AbortSignal) => Promise<Api.OperationShown>} */
  operation: (id, signal) => get(operationPath(id), signal),

  /** @type {(id: string, signal: AbortSignal) => Promise<Api.History>} */
  history: (id, signal) => getData(`${operationPath(id)}/history`, signal),

  /** @type {(id: string, signal: AbortSignal) => Promise<{ resumes_from: string | null }>} */
  checkpoint: (id, signal) => getData(`${operationPath(id)}/checkpoint`, signal),

  /** @type {(id: string, signal: AbortSignal) => Promise<unknown>} */
  result: (id, signal) => getData(`${operationPath(id)}/results`, signal),

  /**
   * @type {(id: string, page: Record<string, any>, signal: AbortSignal) =>
   *   Promise<Api.MetricsPage>}
   */
  metrics: (id, page, signal) =>
    getData(`${operationPath(id)}/metrics${queryString(page)}`, signal),

  /** @type {(signal: AbortSignal) => Promise<Api.Schedule[]>} */
  schedules: async (signal) => (await getData('/api/v1/schedules', signal)).schedules,

  /** @type {(id: string, signal: AbortSignal) => Promise<Api.Schedule>} */
  schedule: (id, signal) => getData(schedulePath(id), signal),

  /** @type {(id: string, verb: 'pause' | 'resume') => Promise<void>} */
  setSchedule: (id, verb) => call('POST', `${schedulePath(id)}/${verb}`),

  /** @type {(id: string, idempotencyKey: string) => Promise<Api.Started>} */
  runSchedule: (id, idempotencyKey) =>
    call('POST', `${schedulePath(id)}/run`, { idempotencyKey }),

  /** @type {(id: string) => Promise<void>} */
  deleteSchedule: (id) => call('DELETE', schedulePath(id)),

  /**
   * Cancels or retries all operations that match, up to 1,000.
   * @type {(verb: 'cancel' | 'retry', filter: Record<string, string | string[]>, isDry: boolean,
   *   idempotencyKey?: string) => Promise<Api.DoneByFilter>}
   */
  byFilter: async (verb, filter, isDry, idempotencyKey) => {
    const body = JSON.stringify({ filter, dry_run: isDry });
    const options = { body, idempotencyKey, timeoutMs: MANY_TIMEOUT_MS };
    const { data, warning } = await call('POST', `/api/v1/operations/${verb}`, options);
    return { ...data, warning };
  },

  /** @type {(id: string, priority: number) => Promise<void>} */
  setPriority: (id, priority) =>
    call('PATCH', operationPath(id), { body: JSON.stringify({ priority }) }),

  /**
   * @type {(id: string, page: Record<string, any>, signal: AbortSignal) =>
   *   Promise<Api.LogsPage>}
   */
  logs: (id, page, signal) => getData(`${operationPath(id)}/logs${queryString(page)}`, signal),

  /** @type {(id: string) => Promise<Api.Cancelled>} */
  cancel: (id) => call('DELETE', `${operationPath(id)}/cancel`),

  /** @type {(id: string, idempotencyKey: string) => Promise<Api.Started>} */
  retry: (id, idempotencyKey) => call('POST', `${operationPath(id)}/retry`, { idempotencyKey }),

  /** @type {(id: string, idempotencyKey: string) => Promise<Api.Started>} */
  resume: (id, idempotencyKey) => call('POST', `${operationPath(id)}/resume`, { idempotencyKey }),
};
