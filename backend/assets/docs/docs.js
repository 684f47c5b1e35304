// The page at /docs: everything in /openapi.json, to read and to try. It uses nothing else.

import { h, show } from '/dashboard/dom.js';
import { tree } from './schema.js';
import { form } from './try.js';

const main = document.getElementById('main');
const find = document.getElementById('find');

function answers(api, operation) {
  const rows = Object.entries(operation.responses).map(([status, response]) => {
    const schemas = Object.entries(response.content ?? {}).map(([kind, media]) =>
      h('details', { class: 'schema' }, h('summary', null, h('small', null, kind)), tree(api, media.schema, 'body')));
    return h('div', null, h('dt', null, status), h('dd', null, response.description, schemas));
  });
  return h('dl', { class: 'answers' }, rows);
}

function content(api, method, path, operation) {
  const body = operation.requestBody?.content?.['application/json']?.schema;
  return h('div', null,
    operation.description ? h('p', null, operation.description) : '',
    form(api, method, path, operation),
    body ? [h('h3', null, 'Request body'), tree(api, body, 'body')] : '',
    operation['x-ktrdr-result'] ? [h('h3', null, 'Result, once completed'), tree(api, operation['x-ktrdr-result'], 'result')] : '',
    h('h3', null, 'Answers'), answers(api, operation));
}

function route(api, method, path, operation) {
  const element = h('details', { class: 'route', id: operation.operationId },
    h('summary', null, h('span', { class: 'method', 'data-method': method }, method), h('code', null, path),
      h('span', { class: 'muted' }, operation.summary)));
  // Made when it is opened: there may be many worker types with large schemas.
  element.addEventListener('toggle', () => {
    if (element.open && element.childElementCount === 1) element.append(content(api, method, path, operation));
    if (element.open) history.replaceState(null, '', `#${operation.operationId}`);
  });
  const words = `${method} ${path} ${operation.summary} ${operation.description ?? ''}`.toLowerCase();
  return { element, words, tag: operation.tags[0] };
}

function filter(routes) {
  const wanted = find.value.trim().toLowerCase().split(/\s+/);
  for (const { element, words } of routes) element.hidden = !wanted.every((word) => words.includes(word));
  for (const group of main.querySelectorAll('.group')) {
    group.hidden = ![...group.querySelectorAll('.route')].some((element) => !element.hidden);
  }
}

async function open() {
  const response = await fetch('/openapi.json', { cache: 'no-store' });
  const api = await response.json();
  const routes = Object.entries(api.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, operation]) => route(api, method.toUpperCase(), path, operation)));
  show(main,
    h('div', { class: 'page-head' }, h('h1', null, `${api.info.title} ${api.info.version}`)),
    h('p', { class: 'muted' }, api.info.description),
    api.tags.map((tag) => h('section', { class: 'group', 'aria-label': tag.name },
      h('h2', null, tag.name), h('p', null, tag.description),
      routes.filter((one) => one.tag === tag.name).map((one) => one.element))));
  find.addEventListener('input', () => filter(routes));
  const linked = document.getElementById(decodeURIComponent(location.hash.slice(1)));
  if (linked?.matches('.route')) {
    linked.open = true;
    linked.scrollIntoView();
  }
}

open().catch((error) => show(main, h('p', { class: 'problem', role: 'alert' }, `The document cannot be read: ${error.message}`)));
