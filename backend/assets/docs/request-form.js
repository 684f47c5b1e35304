// A form that sends one request and shows the response.

import { curlCommand } from '../dashboard/curl.js';
import { h, setText, show } from '../dashboard/dom.js';
import { readJson, writeJson } from '../dashboard/exact.js';
import { fetchWith, noticeRefusal } from '../dashboard/token-fetch.js';
import { tabToken } from '../dashboard/token.js';
import { markCode } from '../dashboard/words.js';
import { requestAddress } from './request.js';
import { example, resolve } from './schema-facts.js';

// Characters of a response that are shown: more make the page slow.
const MAX_SHOWN = 200_000;
const SHOWN_HEADERS = ['content-type', 'location', 'retry-after', 'x-request-id'];

let ids = 0;

/**
 * @param {OpenApi} api
 * @param {OpenApiParameter} parameter
 */
function parameterField(api, parameter) {
  const resolved = resolve(api, parameter.schema);
  const schema = typeof resolved === 'object' ? resolved : {};
  ids += 1;
  const id = `parameter-${ids}`;
  const choices = schema.enum ?? (schema.type === 'boolean' ? ['true', 'false'] : undefined);
  const input = choices
    ? h('select', { id },
      !parameter.required && h('option', { value: '' }, '–'),
      choices.map((choice) => h('option', { value: choice }, String(choice))))
    : h('input', {
      id, required: parameter.required, autocomplete: 'off', spellcheck: 'false',
      placeholder: schema.default === undefined ? '' : String(schema.default),
    });

  const element = h('div', { class: 'field' },
    h('label', { for: id },
      h('code', null, parameter.name),
      parameter.required && h('span', { class: 'must' }, ' required')),
    input, h('small', null, markCode(parameter.description)));
  return { parameter, input, element };
}

/**
 * @param {OpenApi} api
 * @param {string} method
 * @param {string} path
 * @param {OpenApiOperation} operation
 */
export function requestForm(api, method, path, operation) {
  const fields = (operation.parameters ?? []).map((parameter) => parameterField(api, parameter));
  const media = operation.requestBody?.content?.['application/json'];
  const body = media && h('textarea', {
    'aria-label': 'Request body, JSON', spellcheck: 'false',
    value: writeJson(example(api, media.schema), 2),
  });
  const response = h('div', { class: 'answer', 'aria-live': 'polite' });
  const send = h('button', { type: 'submit', class: 'button primary' }, 'Send');
  const stop = h('button', {
    type: 'button', class: 'button', hidden: true, onclick: () => controller?.abort(),
  }, 'Stop');
  /** @type {AbortController | undefined} */
  let controller;

  function readRequest() {
    const values = fields.map(({ parameter, input }) => ({ parameter, value: input.value }));
    const { url, headers } = requestAddress(path, values);
    if (!body || body.value.trim() === '') return { url, headers, body: undefined };
    return { url, headers: { ...headers, 'Content-Type': 'application/json' }, body: body.value };
  }

  /** @param {SubmitEvent} event */
  async function submit(event) {
    event.preventDefault();
    controller?.abort();
    const own = new AbortController();
    controller = own;
    const request = readRequest();
    const { url, headers } = request;
    const view = responseView();
    const used = tabToken.value;
    const command = curlCommand(method, location.origin + url, {
      headers, body: request.body, withToken: tabToken.isUsed,
    });
    show(response, h('pre', null, command), view.elements);
    stop.hidden = false;

    const sentAt = performance.now();
    try {
      const options = { method, headers, body: request.body, signal: own.signal };
      const answer = await fetchWith(used, url, options);
      // What is forbidden is only shown: the same token may do other things.
      await noticeRefusal(answer, used, false);
      view.showHead(answer, Math.round(performance.now() - sentAt));
      await showBody(answer, view);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      view.addToStatus(own.signal.aborted ? ' (stopped)' : ` No response: ${message}`);
    } finally {
      if (controller === own) stop.hidden = true;
    }
  }

  return h('form', { class: 'try', onsubmit: submit, 'aria-label': `Try ${method} ${path}` },
    fields.map(({ element }) => element),
    body && [h('h3', null, 'Body'), body],
    h('div', { class: 'buttons' }, send, stop), response);
}

/** Where a response is shown. */
function responseView() {
  const status = h('p', { role: 'status' }, 'Waiting…');
  const text = h('pre', { hidden: true, tabindex: '0', 'aria-label': 'Response body' });
  const cut = h('p', { class: 'muted', hidden: true, role: 'status' });
  return {
    elements: [status, text, cut],
    /**
     * @param {Response} response
     * @param {number} milliseconds
     */
    showHead(response, milliseconds) {
      const headers = SHOWN_HEADERS
        .filter((name) => response.headers.get(name))
        .map((name) => `${name}: ${response.headers.get(name)}`);
      show(status,
        h('b', null, `${response.status} ${response.statusText}`),
        ` in ${milliseconds} ms `, h('small', null, headers.join(' · ')));
    },
    /** @param {string} shown */
    showText(shown) {
      text.hidden = shown === '';
      setText(text, shown);
    },
    /** @param {number} length of the whole response */
    showCut(length) {
      cut.hidden = false;
      setText(cut, `Cut off: these are the first ${MAX_SHOWN.toLocaleString('en')} of `
        + `${length.toLocaleString('en')} characters.`);
    },
    /** @param {string} message */
    addToStatus(message) {
      status.append(message);
    },
  };
}

/**
 * Shows a body. A live stream never ends by itself, so its text is shown while it comes.
 * @param {Response} response
 * @param {ReturnType<typeof responseView>} view
 */
async function showBody(response, view) {
  if (!response.body) return;
  const isJson = (response.headers.get('content-type') ?? '').includes('json');
  const reader = response.body.getReader();
  const decoder = new TextDecoder();
  let text = '';
  let length = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;

    const part = decoder.decode(value, { stream: true });
    const wasFull = length >= MAX_SHOWN;
    length += part.length;
    if (!wasFull) text = (text + part).slice(0, MAX_SHOWN);
    if (length > MAX_SHOWN) view.showCut(length);
    if (!isJson && !wasFull) view.showText(text);
  }

  view.showText(isJson && length <= MAX_SHOWN ? indented(text) : text);
}

/** @param {string} text */
function indented(text) {
  try {
    return writeJson(readJson(text), 2);
  } catch {
    // The header says JSON, but it is not: shown as it came.
    return text;
  }
}
