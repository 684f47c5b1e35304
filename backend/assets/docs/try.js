// A form that sends one request and shows what comes back.

import { h, show } from '/dashboard/dom.js';
import { readJson, writeJson } from '/dashboard/exact.js';
import { example, resolve, words } from './schema.js';

// Characters of an answer: more makes the page slow.
const SHOWN = 200_000;

function input(document, parameter) {
  const schema = resolve(document, parameter.schema) ?? {};
  const id = `p${Math.random().toString(36).slice(2)}`;
  const choices = schema.enum ?? (schema.type === 'boolean' ? ['true', 'false'] : undefined);
  const field = choices
    ? h('select', { id }, parameter.required ? [] : h('option', { value: '' }, '–'), choices.map((choice) => h('option', { value: choice }, String(choice))))
    : h('input', { id, required: parameter.required, placeholder: schema.default === undefined ? '' : String(schema.default), autocomplete: 'off', spellcheck: 'false' });
  const row = h('div', { class: 'field' },
    h('label', { for: id }, h('code', null, parameter.name), parameter.required ? h('span', { class: 'must' }, ' required') : ''),
    field, h('small', null, words(parameter.description)));
  return { parameter, field, row };
}

export function form(document, method, path, operation) {
  const fields = (operation.parameters ?? []).map((parameter) => input(document, parameter));
  const media = operation.requestBody?.content?.['application/json'];
  const body = media && h('textarea', { 'aria-label': 'Request body, JSON', spellcheck: 'false', value: writeJson(example(document, media.schema), 2) });
  const output = h('div', { class: 'answer', 'aria-live': 'polite' });
  const send = h('button', { type: 'submit', class: 'button primary' }, 'Send');
  const stop = h('button', { type: 'button', class: 'button', hidden: true, onclick: () => controller?.abort() }, 'Stop');
  let controller;

  async function submit(event) {
    event.preventDefault();
    controller?.abort();
    controller = new AbortController();
    const own = controller;
    const { url, headers } = address(path, fields);
    const options = { method, headers, signal: own.signal, cache: 'no-store' };
    if (body && body.value.trim() !== '') {
      options.body = body.value;
      headers['Content-Type'] = 'application/json';
    }
    const command = h('pre', null, curl(method, url, headers, options.body));
    const status = h('p', { role: 'status' }, 'Waiting…');
    const text = h('pre', { hidden: true, tabindex: '0', 'aria-label': 'Response body' });
    const cut = h('p', { class: 'muted', hidden: true, role: 'status' });
    show(output, command, status, text, cut);
    stop.hidden = false;
    const begun = performance.now();
    try {
      const response = await fetch(url, options);
      const took = Math.round(performance.now() - begun);
      const kept = ['content-type', 'location', 'retry-after', 'x-request-id'].filter((name) => response.headers.get(name));
      show(status, h('b', null, `${response.status} ${response.statusText}`), ` in ${took} ms `,
        h('small', null, kept.map((name) => `${name}: ${response.headers.get(name)}`).join(' · ')));
      await read(response, text, cut);
    } catch (error) {
      status.append(own.signal.aborted ? ' (stopped)' : ` No answer: ${error.message}`);
    } finally {
      if (controller === own) stop.hidden = true;
    }
  }

  return h('form', { class: 'try', onsubmit: submit, 'aria-label': `Try ${method} ${path}` },
    fields.map((field) => field.row), body ? [h('h3', null, 'Body'), body] : '', h('div', { class: 'buttons' }, send, stop), output);
}

function address(path, fields) {
  const query = new URLSearchParams();
  const headers = {};
  for (const { parameter, field } of fields) {
    const value = field.value;
    if (parameter.in === 'path') path = path.replace(`{${parameter.name}}`, encodeURIComponent(value));
    else if (value === '') continue;
    else if (parameter.in === 'query') query.set(parameter.name, value);
    else headers[parameter.name] = value;
  }
  const search = query.toString();
  return { url: search ? `${path}?${search}` : path, headers };
}

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curl(method, url, headers, body) {
  const parts = ['curl', '-s', ...(method === 'GET' ? [] : ['-X', method]), quote(location.origin + url)];
  for (const [name, value] of Object.entries(headers)) parts.push('-H', quote(`${name}: ${value}`));
  if (body) parts.push('-d', quote(body));
  return parts.join(' ');
}

// Live streams never end by themselves, so what has come is shown while more comes.
async function read(response, output, cut) {
  const json = (response.headers.get('content-type') ?? '').includes('json');
  const decoder = new TextDecoder();
  let text = '';
  let length = 0;
  if (!response.body) return;
  const reader = response.body.getReader();
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    const part = decoder.decode(value, { stream: true });
    length += part.length;
    if (text.length < SHOWN) text = (text + part).slice(0, SHOWN);
    cut.hidden = length <= SHOWN;
    if (!cut.hidden) cut.textContent = `Cut off: these are the first ${SHOWN.toLocaleString('en')} of ${length.toLocaleString('en')} characters.`;
    if (!json && output.textContent.length < SHOWN) {
      output.hidden = false;
      output.textContent = text;
    }
  }
  if (json && cut.hidden) {
    try { text = writeJson(readJson(text), 2); } catch { /* shown as it came */ }
  }
  output.hidden = text === '';
  output.textContent = text;
}
