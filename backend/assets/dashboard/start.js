// Starts an operation: a form from the worker type's schema, or its body as JSON.

import { api } from './api.js';
import { h, show, text, toast } from './dom.js';
import { FieldError, form } from './form.js';
import { count, title } from './format.js';

const EXECUTION = {
  type: 'object',
  properties: {
    requirements: {
      type: 'object', default: {}, description: 'What a worker must have to run it',
      properties: {
        gpu: { type: 'boolean', default: false, description: 'Needs a GPU' },
        cores: { type: 'integer', minimum: 1, maximum: 65536, description: 'Processor cores' },
        memory_gb: { type: 'integer', minimum: 1, maximum: 1048576, description: 'Memory in GiB' },
      },
    },
    timeout_seconds: { type: 'number', description: 'Seconds one attempt may run; no limit when empty' },
    max_attempts: { type: 'integer', minimum: 1, maximum: 1000, description: 'Attempts in all, failures included' },
    retry_delay: { type: 'number', minimum: 0, maximum: 3600, description: 'Seconds before a failed attempt is tried again; doubles each time' },
  },
};

const OWN = { type: 'object', properties: { task_id: { type: 'string', description: 'An id of your own: starting the same one twice starts it once. Made up when empty.' } } };

export default function start({ root, signal, argument, listen }) {
  // A form needs no events, only to know whether the backend is there.
  listen('/api/v1/events?operation_type=none&worker_type=none', {});
  const picker = h('select', { id: 'start-type', onchange: () => { location.hash = `#/start/${encodeURIComponent(picker.value)}`; } });
  const box = h('div');
  show(root, h('div', { class: 'page-head' }, h('h1', null, 'Start an operation')),
    h('section', { class: 'card start' }, h('div', { class: 'field' }, h('label', { for: 'start-type' }, 'What to run'), picker), box));
  api.types(signal).then((types) => {
    if (types.length === 0) {
      picker.disabled = true;
      show(box, h('p', { class: 'empty' }, 'No worker type is known yet. Start a worker, and its form appears here.'));
      return;
    }
    show(picker, types.map((type) => h('option', { value: type.worker_type }, title(type.worker_type))));
    const type = types.find((one) => one.worker_type === argument) ?? types.find((one) => one.workers > 0) ?? types[0];
    picker.value = type.worker_type;
    startForm(box, type);
  }).catch((error) => { if (!signal.aborted) show(box, h('p', { class: 'problem' }, error.message)); });
}

function startForm(box, type) {
  let own = form(OWN);
  let execution = form(EXECUTION, { base: '/execution' });
  let parameters = form(type.request_schema);
  let asJson = false;
  const area = h('textarea', { class: 'code', rows: 16, spellcheck: 'false', 'aria-label': 'The request as JSON' });
  const fields = h('div', { class: 'form-body' });
  const error = h('div', { class: 'problem', hidden: true, role: 'alert' });
  const submit = h('button', { type: 'submit', class: 'button primary' }, 'Start');
  const modes = ['Form', 'JSON'].map((name, at) => h('button', { type: 'button', class: 'segment', 'aria-pressed': String(at === 0), onclick: () => switchTo(at === 1) }, name));
  const element = h('form', { class: 'start-form', novalidate: true, onsubmit: send },
    h('div', { class: 'form-head' }, h('p', { class: 'muted' }, type.description), h('div', { class: 'segments', role: 'group', 'aria-label': 'How to enter it' }, modes)),
    type.workers === 0 && h('p', { class: 'note' }, 'No worker of this type is here now; the operation will wait until there is one.'),
    fields, error, h('div', { class: 'form-end' }, submit,
      h('span', { class: 'muted' }, type.workers > 0 ? `${count(type.workers)} ${type.workers === 1 ? 'worker' : 'workers'} of this type` : '')));
  show(box, element);
  lay();

  function lay() {
    show(fields, asJson ? area : [parameters.element,
      h('details', { class: 'branch options' }, h('summary', null, 'How to run it'), own.element, execution.element)]);
  }

  function body() {
    if (asJson) {
      try { return JSON.parse(area.value); } catch (problem) { throw new FieldError('', `This is no JSON: ${problem.message}`); }
    }
    const how = execution.read();
    // Nothing asked for is left out, so that the operation shows only what was.
    const requirements = Object.fromEntries(Object.entries(how.requirements ?? {}).filter(([, value]) => value !== false));
    if (Object.keys(requirements).length > 0) how.requirements = requirements;
    else delete how.requirements;
    return { ...own.read(), ...parameters.read(), ...(Object.keys(how).length > 0 ? { execution: how } : {}) };
  }

  function switchTo(json) {
    if (json === asJson) return;
    try {
      const value = body();
      if (json) area.value = JSON.stringify(value, null, 2);
      else {
        const { task_id, execution: how, ...rest } = value;
        const next = form(type.request_schema, { value: rest });
        const read = next.read();
        const lost = Object.keys(rest).filter((name) => !(name in read));
        if (lost.length > 0) throw new FieldError('', `The form has no place for: ${lost.join(', ')}`);
        parameters = next;
        own = form(OWN, { value: { task_id } });
        execution = form(EXECUTION, { value: how, base: '/execution' });
      }
      asJson = json;
      error.hidden = true;
      modes.forEach((mode, at) => mode.setAttribute('aria-pressed', String((at === 1) === json)));
      lay();
    } catch (problem) {
      complain(problem);
    }
  }

  function complain(problem) {
    const violations = problem instanceof FieldError ? [{ path: problem.path, message: problem.message }] : problem.violations ?? [];
    let rest = violations;
    let first = null;
    if (!asJson) {
      for (const part of [own, execution, parameters]) {
        const mine = rest.filter(({ path }) => (part === execution ? path.startsWith('/execution') : part === own ? path === '/task_id' : true));
        const others = rest.filter((violation) => !mine.includes(violation));
        const marked = part.mark(mine);
        rest = [...others, ...marked.rest];
        first = marked.first ?? first;
      }
    }
    const texts = violations.length > 0 ? rest.map(({ path, message }) => (path ? `${path}: ${message}` : message)) : [problem.message];
    error.hidden = texts.length === 0;
    show(error, texts.map((line) => h('p', null, line)));
    if (first) {
      first.element.closest('details')?.setAttribute('open', '');
      first.focus();
    }
  }

  async function send(event) {
    event.preventDefault();
    for (const part of [own, execution, parameters]) part.clear();
    error.hidden = true;
    submit.disabled = true;
    text(submit, 'Starting…');
    try {
      const answer = await api.start(type.domain, body());
      toast(answer.warning ?? `Started ${answer.operation_id}`, answer.warning ? 'warn' : 'info');
      location.hash = `#/operations/${encodeURIComponent(answer.operation_id)}`;
    } catch (problem) {
      complain(problem);
    } finally {
      submit.disabled = false;
      text(submit, 'Start');
    }
  }
}
