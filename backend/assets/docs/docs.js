// The page at /docs: everything in /openapi.json, to read and to try. It uses nothing else.

import { h, show, text } from '/dashboard/dom.js';
import { readJson } from '/dashboard/exact.js';
import { tree, words } from './schema.js';
import { form } from './try.js';

const main = document.getElementById('main');
const find = document.getElementById('find');
const none = h('p', { class: 'muted', role: 'status' });

function answers(api, operation) {
  const rows = Object.entries(operation.responses).map(([status, response]) => {
    const schemas = Object.entries(response.content ?? {}).map(([kind, media]) =>
      h('details', { class: 'schema' }, h('summary', null, h('small', null, kind)), tree(api, media.schema, 'body')));
    return h('div', null, h('dt', null, status), h('dd', null, words(response.description), schemas));
  });
  return h('dl', { class: 'answers' }, rows);
}

function content(api, method, path, operation) {
  const body = operation.requestBody?.content?.['application/json']?.schema;
  return h('div', null,
    operation.description ? h('p', null, words(operation.description)) : '',
    form(api, method, path, operation),
    body ? [h('h3', null, 'Request body'), tree(api, body, 'body')] : '',
    operation['x-ktrdr-result'] ? [h('h3', null, 'Result, once completed'), tree(api, operation['x-ktrdr-result'], 'result')] : '',
    h('h3', null, 'Answers'), answers(api, operation));
}

function route(api, method, path, operation) {
  const element = h('details', { class: 'route', id: operation.operationId },
    h('summary', null, h('span', { class: 'method', 'data-method': method }, method), h('code', null, path),
      h('span', { class: 'muted' }, words(operation.summary))));
  // Made when it is opened: there may be many worker types with large schemas.
  element.addEventListener('toggle', () => {
    if (element.open && element.childElementCount === 1) element.append(content(api, method, path, operation));
    if (element.open) history.replaceState(null, '', `#${operation.operationId}`);
  });
  const searched = `${method} ${path} ${operation.summary} ${operation.description ?? ''}`.toLowerCase();
  return { element, searched, tag: operation.tags[0] };
}

function filter(routes) {
  const wanted = find.value.trim().toLowerCase().split(/\s+/);
  for (const { element, searched } of routes) element.hidden = !wanted.every((word) => searched.includes(word));
  for (const group of main.querySelectorAll('.group')) {
    group.hidden = ![...group.querySelectorAll('.route')].some((element) => !element.hidden);
  }
  text(none, routes.every(({ element }) => element.hidden) ? `No route has “${find.value.trim()}”` : '');
}

// Opens the route that the address names, and brings its heading below the header.
function goTo() {
  let id = location.hash.slice(1);
  try { id = decodeURIComponent(id); } catch { /* an id like any other */ }
  const linked = document.getElementById(id);
  if (!linked?.matches('.route')) return;
  if (linked.hidden || linked.closest('[hidden]')) {
    find.value = '';
    find.dispatchEvent(new Event('input'));
  }
  linked.open = true;
  // The header wraps where it is narrow.
  document.documentElement.style.setProperty('--head', `${document.querySelector('.top').offsetHeight}px`);
  linked.scrollIntoView();
}

async function open() {
  const response = await fetch('/openapi.json', { cache: 'no-store' });
  // As it is written: some limits are larger than JavaScript's numbers are exact.
  const api = readJson(await response.text());
  const routes = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => route(api, method.toUpperCase(), path, operation)));
  show(main,
    h('div', { class: 'page-head' }, h('h1', null, `${api.info.title} ${api.info.version}`)),
    h('p', { class: 'muted' }, words(api.info.description)), none,
    api.tags.map((tag) => h('section', { class: 'group', 'aria-label': tag.name },
      h('h2', null, tag.name), h('p', null, words(tag.description)),
      routes.filter((one) => one.tag === tag.name).map((one) => one.element))));
  find.addEventListener('input', () => filter(routes));
  addEventListener('hashchange', goTo);
  goTo();
}

open().catch((error) => show(main, h('p', { class: 'problem', role: 'alert' }, `The document cannot be read: ${error.message}`)));
