// Requests with the token of the tab. All requests of the pages go through here.

import { authorization, refusalOf, tabToken } from './token.js';

/**
 * Sends one request with a certain token.
 * @param {string | null} token
 * @param {string} path
 * @param {RequestInit & { headers?: Record<string, string> }} init
 */
export function fetchWith(token, path, init) {
  const headers = { ...init.headers, ...authorization(token) };
  return fetch(path, { ...init, headers, cache: 'no-store' });
}

/**
 * Tells the tab's token what an answer says about it.
 * @param {Response} response its body stays unread
 * @param {string | null} used the token of the request
 * @param {boolean} isRead a request that only reads: when even that is forbidden, the token is of
 *   no use
 * @returns {Promise<boolean>} whether the server refused the token
 */
export async function noticeRefusal(response, used, isRead) {
  const { status } = response;
  if (status !== 401 && !(status === 403 && isRead)) return false;

  const problem = await response.clone().json().catch(() => null);
  const reason = refusalOf(status, problem);
  if (reason !== null) tabToken.refuse(used, reason);
  return reason !== null;
}

/**
 * Sends a request with the token of the tab. A read waits while a token is wanted, and is repeated
 * when the server refuses the token. Everything else fails: what a user has asked for some time ago
 * does not happen by itself.
 * @param {string} method
 * @param {string} path
 * @param {() => RequestInit & { headers?: Record<string, string> }} makeInit called for each try
 * @param {AbortSignal} [signal] ends the waiting
 */
export async function fetchWithToken(method, path, makeInit, signal) {
  const isRead = method === 'GET';
  for (;;) {
    if (isRead) await tabToken.usable(signal);

    const used = tabToken.value;
    const response = await fetchWith(used, path, { ...makeInit(), method });
    const isRefused = await noticeRefusal(response, used, isRead);
    if (!isRefused || !isRead) return response;
  }
}
