// The form that starts an operation of one worker type.

import { operationAddress } from './addresses.js';
import { exchange } from './api.js';
import { bodyEditor } from './body-editor.js';
import { copy } from './copy.js';
import { h, setText } from './dom.js';
import { readJson } from './exact.js';
import { count } from './format.js';
import { RequestKey } from './request-key.js';
import { startCommand } from './start-again.js';
import { toast } from './toast.js';
import { markCode } from './words.js';

/** @typedef {ReturnType<typeof startForm>} StartForm */

/**
 * @param {Api.WorkerType} type
 * @param {OpenApi} openApi
 * @param {AbortSignal} signal
 * @param {import('./body-editor.js').Values} [values] of another operation, to begin with
 */
export function startForm(type, openApi, signal, values = {}) {
  const body = bodyEditor(type, openApi, values);
  const key = new RequestKey();
  const submit = h('button', { type: 'submit', class: 'button primary' }, 'Start');
  const curl = h('button', { type: 'button', class: 'button', onclick: copyAsCurl }, 'Copy as curl');
  const workers = workerCount();
  const element = h('form', { class: 'start-form', novalidate: true, onsubmit: send },
    h('div', { class: 'form-head' },
      h('p', { class: 'muted' }, markCode(type.description)), body.tools),
    unusableNote(type), workers.note, body.fields, body.problem,
    h('div', { class: 'form-end' }, submit, curl, workers.element));
  workers.set(type.workers);

  function copyAsCurl() {
    body.clearErrors();
    try {
      copy('the curl command', startCommand(type.domain, body.text()));
    } catch (error) {
      body.complain(error);
    }
  }

  /** @param {SubmitEvent} event */
  async function send(event) {
    event.preventDefault();
    body.clearErrors();
    submit.disabled = true;
    setText(submit, 'Starting…');
    try {
      const path = `/api/v1/${encodeURIComponent(type.domain)}/start`;
      const written = body.text();
      const { status, answer } = await exchange('POST', path, {
        body: written, idempotencyKey: key.of(written), read: readJson,
      });
      key.accepted();
      toastStarted(status, answer);
      // A user who has left meanwhile stays where they are.
      const isHere = !signal.aborted && element.isConnected;
      if (isHere) location.hash = operationAddress(answer.operation_id);
    } catch (error) {
      body.complain(error);
    } finally {
      submit.disabled = false;
      setText(submit, 'Start');
    }
  }

  return { element, setWorkers: workers.set };
}

/**
 * Why no start of this type can succeed, if that is so.
 * @param {Api.WorkerType} type
 */
export function unusableNote({ schema_error: schemaError, domain, domain_owner: owner }) {
  const why = owner
    ? `The domain ${domain} belongs to the worker type ${owner}. Give this type another one.`
    : schemaError && `The request schema cannot be used, so every start is refused: ${schemaError}`;
  return why ? h('p', { class: 'problem' }, why) : null;
}

/**
 * @param {number} status
 * @param {Api.Started} started
 */
function toastStarted(status, { operation_id: id, warning }) {
  if (status === 200) toast(`${id} exists already; nothing was started`, 'warn');
  else if (warning) toast(warning, 'warn');
  else toast(`Started ${id}`);
}

/** How many workers there are, and a note when there is none. */
function workerCount() {
  const note = h('p', { class: 'note' },
    'No worker of this type is here now; the operation will wait until there is one.');
  const element = h('span', { class: 'muted' });
  return {
    note,
    element,
    /** @param {number} workers */
    set(workers) {
      note.hidden = workers > 0;
      const unit = workers === 1 ? 'worker' : 'workers';
      setText(element, workers > 0 ? `${count(workers)} ${unit} of this type` : '');
    },
  };
}
