// The page at /docs: everything in /openapi.json, to read and to try. It uses nothing else.

import { asApiError, call } from '../dashboard/api.js';
import { byId, h, setText, show } from '../dashboard/dom.js';
import { downloadWithToken } from '../dashboard/download.js';
import { readJson } from '../dashboard/exact.js';
import { makeTabs } from '../dashboard/tabs.js';
import { handleToken } from '../dashboard/token-dialog.js';
import { tabToken } from '../dashboard/token.js';
import { markCode } from '../dashboard/words.js';
import { requestForm } from './request-form.js';
import { schemaTree } from './schema-tree.js';

/** @typedef {{ element: HTMLDetailsElement, searched: string, tag: string }} RouteEntry */

const main = byId('routes');
const search = /** @type {HTMLInputElement} */ (byId('find'));
const noneFound = h('p', { class: 'muted', role: 'status' });

/**
 * @param {OpenApi} api
 * @param {OpenApiOperation} operation
 */
function responseList(api, operation) {
  const entries = Object.entries(operation.responses).map(([status, response]) => {
    const schemas = Object.entries(response.content ?? {}).map(([mediaType, { schema }]) =>
      h('details', { class: 'schema' },
        h('summary', null, h('small', null, mediaType)), schemaTree(api, schema, 'body')));
    return h('div', null,
      h('dt', null, status), h('dd', null, markCode(response.description), schemas));
  });
  return h('dl', { class: 'answers' }, entries);
}

/**
 * @param {OpenApi} api
 * @param {string} method
 * @param {string} path
 * @param {OpenApiOperation} operation
 */
function routeContent(api, method, path, operation) {
  const body = operation.requestBody?.content?.['application/json']?.schema;
  const result = operation['x-ktrdr-result'];
  return h('div', null,
    operation.description && h('p', null, markCode(operation.description)),
    requestForm(api, method, path, operation),
    body && [h('h3', null, 'Request body'), schemaTree(api, body, 'body')],
    result && [h('h3', null, 'Result, once completed'), schemaTree(api, result, 'result')],
    h('h3', null, 'Responses'), responseList(api, operation));
}

/**
 * @param {OpenApi} api
 * @param {string} method
 * @param {string} path
 * @param {OpenApiOperation} operation
 * @returns {RouteEntry}
 */
function routeEntry(api, method, path, operation) {
  const { operationId, summary, description = '', tags } = operation;
  const element = h('details', { class: 'route', id: operationId },
    h('summary', null,
      h('span', { class: 'method', 'data-method': method }, method),
      h('code', null, path),
      h('span', { class: 'muted' }, markCode(summary))));

  element.addEventListener('toggle', () => {
    if (!element.open) return;
    // Made when it is opened: there may be many worker types with large schemas.
    if (element.childElementCount === 1) element.append(routeContent(api, method, path, operation));
    history.replaceState(null, '', `#${operationId}`);
  });
  const searched = `${method} ${path} ${summary} ${description}`.toLowerCase();
  return { element, searched, tag: tags[0] };
}

/** @param {RouteEntry[]} routes */
function filterRoutes(routes) {
  const words = search.value.trim().toLowerCase().split(/\s+/);
  for (const { element, searched } of routes) {
    element.hidden = !words.every((word) => searched.includes(word));
  }

  for (const group of main.querySelectorAll('.group')) {
    const hidden = group.querySelectorAll('.route[hidden]');
    setHidden(group, hidden.length === group.querySelectorAll('.route').length);
  }
  const isNone = routes.every(({ element }) => element.hidden);
  setText(noneFound, isNone ? `No route has “${search.value.trim()}”` : '');
}

/**
 * @param {Element} element
 * @param {boolean} isHidden
 */
function setHidden(element, isHidden) {
  element.toggleAttribute('hidden', isHidden);
}

/** @param {string} hash */
function idFrom(hash) {
  const id = hash.slice(1);
  try {
    return decodeURIComponent(id);
  } catch {
    return id;
  }
}

/** Opens the route that the address names, and brings its heading below the header. */
function goToRoute() {
  const route = document.getElementById(idFrom(location.hash));
  if (!(route instanceof HTMLDetailsElement) || !route.matches('.route')) return;

  if (route.closest('[hidden]')) {
    search.value = '';
    search.dispatchEvent(new Event('input'));
  }
  route.open = true;
  // The header is higher where it wraps.
  const header = document.querySelector('.top')?.getBoundingClientRect().height ?? 0;
  document.documentElement.style.setProperty('--head', `${header}px`);
  route.scrollIntoView();
}

async function showDocument() {
  // With `readJson`: some limits are larger than JavaScript numbers are exact.
  /** @type {OpenApi} */
  const api = await call('GET', '/openapi.json', { read: readJson });
  const routes = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) =>
      routeEntry(api, method.toUpperCase(), path, operation)));
  const groups = api.tags.map(({ name, description }) =>
    h('section', { class: 'group', 'aria-label': name },
      h('h2', null, name), h('p', null, markCode(description)),
      routes.filter(({ tag }) => tag === name).map(({ element }) => element)));

  show(main,
    h('p', { class: 'muted' }, `${api.info.title} ${api.info.version}. `,
      markCode(api.info.description)),
    noneFound, groups);
  search.addEventListener('input', () => filterRoutes(routes));
  addEventListener('hashchange', goToRoute);
  goToRoute();
}

makeTabs(true);
handleToken();
main.before(downloadWithToken(byId('document'), 'openapi.json'));
// Somebody who reads the page without a token sees why there is nothing.
const reading = main.querySelector('.empty');
tabToken.onChange(() => {
  if (!reading?.isConnected) return;
  setText(reading, tabToken.isWanted ? 'This server asks for a token.' : 'Reading the document…');
});
showDocument().catch((thrown) => {
  const message = `The document cannot be read: ${asApiError(thrown).message}`;
  show(main, h('p', { class: 'problem', role: 'alert' }, message));
});
